"""Measuring links, in a simulated world whose links are known."""

from __future__ import annotations

import pytest

from hvd_gossip.choice.probe import probe
from hvd_gossip.errors import WaitTimeoutError
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize(("latency", "bandwidth"), [(2e-5, 1e9), (1e-2, 1e7)])
def test_it_finds_what_the_links_are(size: int, latency: float, bandwidth: float) -> None:
    world = SimulatedWorld(size, links=Links(latency, bandwidth))
    tasks = [endpoint.spawn(probe(endpoint, 60.0), "probing") for endpoint in world.endpoints]
    world.run(tasks)
    for task in tasks:
        assert task.result() == pytest.approx((latency, bandwidth), rel=0.1)


def test_it_is_bounded_in_bytes() -> None:
    world = SimulatedWorld(4, links=Links(1e-5, 1e9))
    world.run([endpoint.spawn(probe(endpoint, 60.0), "probing") for endpoint in world.endpoints])
    assert max(endpoint.bytes_sent for endpoint in world.endpoints) < 8 << 20


def test_a_rank_that_does_not_answer_is_named() -> None:
    world = SimulatedWorld(2)
    task = world.endpoints[0].spawn(probe(world.endpoints[0], 3.0), "probing")
    with pytest.raises(WaitTimeoutError, match="rank 0 waited 3 s for rank 1 to measure"):
        world.run([task])
