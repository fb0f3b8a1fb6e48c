"""What a ring allreduce costs: in closed form, and event by event with the package's own ring.

    2 (n - 1) steps, each of the slowest link's latency and the time of bytes / n                       (Patarasuk and Yuan, 2009)

A thousand ranks exchange two million messages a step: the closed form stands in for them, and `benchmarks.scale.rings` compares
it with the events at 16 to 64 ranks. It is kind to the baseline: messages travel without asking first, and nothing is late.
"""

from __future__ import annotations

import numpy as np

from hvd_gossip.collectives.flow import Transfer
from hvd_gossip.collectives.reduce import reduce_vectors
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.request import ReduceOp
from hvd_gossip.collectives.ring import RingAllreduce
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.transport.endpoint import COLLECTIVE_BASE, Endpoint
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links

ASKING = 3
"""Latencies of a message that announces itself and waits for its receive, over those of one that does not."""


def ring_seconds(size: int, nbytes: float, links: Links, latencies: int = 1) -> float:
    """Seconds of an allreduce of so many bytes, in closed form.

    Args:
        latencies: how many a message costs: 1, or ASKING.
    """
    if size == 1:
        return 0.0
    routes = [links.route(rank, (rank + 1) % size) for rank in range(size)]
    step = max(latencies * latency + nbytes / size * per_byte for latency, per_byte in routes)
    return 2 * (size - 1) * step


def ring_bytes(size: int, nbytes: float) -> float:
    """Bytes that a rank sends."""
    return 2 * (size - 1) / size * nbytes


def simulate_ring(size: int, nbytes: float, links: Links, eager_limit: float = float("inf")) -> tuple[float, float]:
    """(seconds, bytes sent by a rank) of an allreduce by the package's ring, event by event."""
    world = SimulatedWorld(size, links=links, eager_limit=eager_limit, payload_scale=nbytes / (4 * size))
    arrays = [np.full(size, rank, np.float32) for rank in range(size)]
    tasks = [
        endpoint.spawn(_allreduce(endpoint, array), "allreduce")
        for endpoint, array in zip(world.endpoints, arrays, strict=True)
    ]
    world.run(tasks)
    np.testing.assert_allclose(arrays, (size - 1) / 2, rtol=1e-6)
    return world.now, world.endpoints[0].bytes_sent


async def _allreduce(endpoint: Endpoint, array: np.ndarray) -> None:
    vector = Vector([array])
    transfer = Transfer(endpoint, range(endpoint.size), COLLECTIVE_BASE)
    await reduce_vectors(transfer, vector, vector, Reduction(array, ReduceOp.AVERAGE, endpoint.size), RingAllreduce)
