"""A pair exchanges its parameters: by one raw Sendrecv, in our chunked lanes, and in those with the averaging."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.job import Meeting, serve
from benchmarks.options import ExchangeOptions
from hvd_gossip import runtime
from hvd_gossip.algorithms.lanes import Lanes
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.buffers.replica import Chunk, Replica
from hvd_gossip.observe.counters import Counters
from hvd_gossip.transport.endpoint import ALGORITHM_BASE, Array

ORDER = ("raw Sendrecv", "lanes", "lanes with averaging")


def measure(options: ExchangeOptions, meeting: Meeting) -> dict[str, list[list[float]]]:
    """By way: when each repetition started and ended here, two lists of `time.monotonic` seconds."""
    current = runtime.init(report=False)
    try:
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        ways = make_ways(options, current, world)
        results: dict[str, list[list[float]]] = {name: [[], []] for name in ORDER}
        for repetition in range(options.warm_up + options.repetitions):
            for name, exchange in ways.items():
                world.Barrier()
                start = time.monotonic()
                exchange()
                end = time.monotonic()
                if repetition >= options.warm_up:
                    results[name][0].append(start)
                    results[name][1].append(end)
    finally:
        runtime.shutdown()
    return results


def make_ways(options: ExchangeOptions, current: runtime.Runtime, world: Any) -> dict[str, Callable[[], object]]:
    """The ways to exchange `options.bytes` between ranks 0 and 1 of an mpi4py communicator."""
    rank = world.Get_rank()
    peer = 1 - rank
    mine = np.full(options.bytes // 4, float(rank), np.float32)
    theirs = np.empty_like(mine)
    ours = {
        corrected: _make_exchange(current, mine, peer, options.chunk_bytes, corrected=corrected)
        for corrected in (False, True)
    }
    return {
        "raw Sendrecv": lambda: world.Sendrecv(mine, peer, recvbuf=theirs, source=peer),
        "lanes": ours[False],
        "lanes with averaging": ours[True],
    }


def _make_exchange(
    current: runtime.Runtime, flat: np.ndarray, peer: int, chunk_bytes: int, *, corrected: bool
) -> Callable[[], object]:
    """One exchange as the engine does it: transport alone, or all that AD-PSGD does with the chunks."""

    def average(chunk: Chunk, sent: Array, arrived: dict[int, Array]) -> None:
        chunk.average(0.5, arrived[peer], sent)

    def nothing(chunk: Chunk, sent: Array, arrived: dict[int, Array]) -> None:
        """Transport alone."""

    channel = ALGORITHM_BASE + (4 if corrected else 0)
    lanes = Lanes(
        current.engine.endpoint,
        Replica([flat], chunk_bytes),
        MixingSettings(),
        Counters(),
        channel,
        corrected=corrected,
    )
    mix = average if corrected else nothing
    return lambda: current.engine.call(lambda: lanes.exchange([peer], [peer], mix), "the pair exchange")


if __name__ == "__main__":
    serve(ExchangeOptions, measure)
