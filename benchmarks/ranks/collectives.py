"""One size after the other: our allreduce, MPI's and gloo's, in turns, on the same tensor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import hvd_gossip.torch as hvd
import numpy as np
import torch
import torch.distributed as dist

from benchmarks.job import Meeting, serve
from benchmarks.options import CollectivesOptions

Operation = Callable[[], object]
ORDER = ("ours in place", "raw in place", "ours", "raw", "gloo")
"""Ways that are compared with each other directly are measured right after each other."""
LEAST = 6
"""Repetitions of one size, at least, after the first one, which is discarded."""


def measure(options: CollectivesOptions, meeting: Meeting) -> dict[str, dict[str, list[list[float]]]]:
    """By size and way: when each repetition started and ended here, two lists of `time.monotonic` seconds."""
    hvd.init()
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting.directory}/gloo", rank=hvd.rank(), world_size=hvd.size()
    )
    try:
        return {str(size): _measure_size(options, size) for size in options.bytes}
    finally:
        dist.destroy_process_group()
        hvd.shutdown()


def _measure_size(options: CollectivesOptions, size: int) -> dict[str, list[list[float]]]:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    ways = make_ways(size, world)
    results: dict[str, list[list[float]]] = {name: [[], []] for name in ORDER}
    estimate = world.bcast(_turn(ways, world, results))
    for times in results.values():
        del times[0][:], times[1][:]
    for _ in range(min(options.most, max(LEAST, round(options.seconds / estimate)))):
        _turn(ways, world, results)
    return results


def _turn(ways: dict[str, Operation], world: Any, results: dict[str, list[list[float]]]) -> float:
    """Every way once; returns the seconds that it took."""
    begun = time.monotonic()
    for name, operation in ways.items():
        world.Barrier()
        start = time.monotonic()
        operation()
        end = time.monotonic()
        results[name][0].append(start)
        results[name][1].append(end)
    return time.monotonic() - begun


def make_ways(size: int, world: Any) -> dict[str, Operation]:
    """The ways to reduce a float32 tensor of `size` bytes over the ranks of an mpi4py communicator.

    Ours average, as is Horovod's default; the others add up. Out of place, the result is a new array both times.
    """
    from mpi4py import MPI

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
