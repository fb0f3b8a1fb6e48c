"""Sets of small tensors: ours one by one and grouped, MPI's and gloo's allreduce, in turns."""

from __future__ import annotations

from typing import Any

import hvd_gossip.torch as hvd
import numpy as np
import torch
import torch.distributed as dist

from benchmarks.job import Meeting, serve
from benchmarks.options import FusionOptions
from benchmarks.ranks.turns import Operation, Times, measure_turns


def measure(options: FusionOptions, meeting: Meeting) -> dict[str, Times]:
    """By number of tensors and way: when each repetition started and ended here, seconds of `time.monotonic`."""
    hvd.init()
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting.directory}/gloo", rank=hvd.rank(), world_size=hvd.size()
    )
    try:
        return {
            str(count): measure_turns(make_ways(count, options.bytes), options.seconds, options.most)
            for count in options.tensors
        }
    finally:
        dist.destroy_process_group()
        hvd.shutdown()


def make_ways(count: int, size: int) -> dict[str, Operation]:
    """The ways to reduce `count` float32 tensors of `size` bytes."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    tensors = [torch.zeros(size // 4) for _ in range(count)]
    arrays = [tensor.numpy() for tensor in tensors]

    def ours() -> None:
        handles = [hvd.allreduce_async_(tensor, name=f"{count}.{number}") for number, tensor in enumerate(tensors)]
        for handle in handles:
            hvd.synchronize(handle)

    def raw() -> None:
        for array in arrays:
            world.Allreduce(MPI.IN_PLACE, array)

    def raw_fused() -> None:
        fused: np.ndarray[Any, Any] = np.concatenate(arrays)
        world.Allreduce(MPI.IN_PLACE, fused)
        for array, part in zip(arrays, np.split(fused, count), strict=True):
            array[...] = part

    def gloo() -> None:
        works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
        for work in works:
            work.wait()

    return {
        "ours": ours,
        "raw": raw,
        "ours grouped": lambda: hvd.grouped_allreduce_(tensors, name=f"grouped.{count}"),
        "raw fused": raw_fused,
        "gloo": gloo,
    }


if __name__ == "__main__":
    serve(FusionOptions, measure)
