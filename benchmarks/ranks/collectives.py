"""One size after the other: our allreduce, MPI's and gloo's, in turns, on the same tensor."""

from __future__ import annotations

import hvd_gossip.torch as hvd
import numpy as np
import torch
import torch.distributed as dist

from benchmarks.job import Meeting, serve
from benchmarks.options import CollectivesOptions
from benchmarks.ranks.turns import Operation, Times, measure_turns


def measure(options: CollectivesOptions, meeting: Meeting) -> dict[str, Times]:
    """By size and way: when each repetition started and ended here, two lists of `time.monotonic` seconds."""
    hvd.init()
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting.directory}/gloo", rank=hvd.rank(), world_size=hvd.size()
    )
    try:
        return {str(size): measure_turns(make_ways(size), options.seconds, options.most) for size in options.bytes}
    finally:
        dist.destroy_process_group()
        hvd.shutdown()


def make_ways(size: int) -> dict[str, Operation]:
    """The ways to reduce a float32 tensor of `size` bytes; those that are compared directly come right after each other.

    Ours average, as is Horovod's default; the others add up. Out of place, the result is a new array both times.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    tensor = torch.zeros(size // 4)
    array = tensor.numpy()
    return {
        "ours in place": lambda: hvd.allreduce_(tensor, name=f"in place {size}"),
        "raw in place": lambda: world.Allreduce(MPI.IN_PLACE, array),
        "ours": lambda: hvd.allreduce(tensor, name=f"{size}"),
        "raw": lambda: world.Allreduce(array, np.empty_like(array)),
        "gloo": lambda: dist.all_reduce(tensor),
    }


if __name__ == "__main__":
    serve(CollectivesOptions, measure)
