"""Ways to do the same thing that take turns, each after a barrier, so that what disturbs the machine hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Operation = Callable[[], object]
Times = dict[str, list[list[float]]]
LEAST = 6
"""Repetitions, at least, after the first one, which is discarded."""


def measure_turns(ways: dict[str, Operation], seconds: float, most: int) -> Times:
    """By way, in the order given: the starts and the ends of its repetitions on this rank, seconds of `time.monotonic`.

    A collective of COMM_WORLD.

    Args:
        seconds: how long to measure, about.
        most: repetitions, at most.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    results: Times = {name: [[], []] for name in ways}
    estimate = world.bcast(_turn(ways, world, results))
    for times in results.values():
        del times[0][:], times[1][:]
    for _ in range(min(most, max(LEAST, round(seconds / estimate)))):
        _turn(ways, world, results)
    return results


def _turn(ways: dict[str, Operation], world: Any, results: Times) -> float:
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
