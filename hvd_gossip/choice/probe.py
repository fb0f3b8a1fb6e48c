"""How fast the links are: a few short and long messages between ranks, all at once, as gossip sends them."""

from __future__ import annotations

import numpy as np

from hvd_gossip.errors import WaitTimeoutError
from hvd_gossip.tasks import Future, all_of, first_of
from hvd_gossip.transport.endpoint import PROBE, Endpoint

PINGS = 8
LONG_BYTES = 1 << 20
LONG_MESSAGES = 3


async def probe(endpoint: Endpoint, limit: float) -> tuple[float, float]:
    """(latency in s, bandwidth in B/s) of this rank's links. Every rank calls it; each sends less than 8 MiB.

    It meets the rank next to it and one half the world away, which is on another host if any is, and keeps the worse figures:
    what gossip waits for. One rank alone has no link that could be slow: (0, inf).

    Args:
        endpoint: of any number of ranks.
        limit: seconds that one message may take.

    Raises:
        WaitTimeoutError: a rank did not answer in time.
    """
    if endpoint.size == 1:
        return 0.0, float("inf")
    distances = sorted({1, endpoint.size // 2})
    figures = [await _probe_at(endpoint, distance, limit) for distance in distances]
    return max(latency for latency, _ in figures), min(bandwidth for _, bandwidth in figures)


async def _probe_at(endpoint: Endpoint, distance: int, limit: float) -> tuple[float, float]:
    round_trips = [await _there_and_back(endpoint, distance, limit) for _ in range(PINGS)]
    latency = min(round_trips) / 2
    whole, part = [
        min([await _shift(endpoint, distance, nbytes, limit) for _ in range(LONG_MESSAGES)])
        for nbytes in (LONG_BYTES, LONG_BYTES // 4)
    ]
    # What both took alike is no matter of bandwidth. Noise may leave too little: then that is not taken out.
    return latency, 0.75 * LONG_BYTES / max(whole - part, 0.1 * whole, 1e-9)


async def _there_and_back(endpoint: Endpoint, distance: int, limit: float) -> float:
    """Seconds until a short message to the rank at the distance has been answered."""
    return await _shift(endpoint, distance, 8, limit) + await _shift(endpoint, -distance, 8, limit)


async def _shift(endpoint: Endpoint, distance: int, nbytes: int, limit: float) -> float:
    """Seconds until what this rank sends is away and what it is sent has come."""
    to, source = (endpoint.rank + distance) % endpoint.size, (endpoint.rank - distance) % endpoint.size
    began, arrived = endpoint.now(), np.empty(nbytes, np.uint8)
    moving = [endpoint.recv(source, PROBE, arrived), endpoint.send(to, PROBE, np.zeros(nbytes, np.uint8))]
    await _bounded(endpoint, endpoint.spawn(all_of(moving), ("probing ranks", to, source)), source, limit)
    return endpoint.now() - began


async def _bounded(endpoint: Endpoint, moving: Future[object], source: int, limit: float) -> None:
    timer = endpoint.sleep(limit)
    await first_of(moving, timer)
    if not moving.done():
        raise WaitTimeoutError(f"rank {endpoint.rank} waited {limit:.0f} s for rank {source} to measure their link")
    timer.cancel()
    moving.result()
