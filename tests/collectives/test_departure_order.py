"""Departure when messages of different ranks overtake each other."""

from __future__ import annotations

import pytest

from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links
from tests.collectives.cluster import Cluster


@pytest.mark.parametrize("leaving", [1, 2, 3])
def test_acknowledgement_may_come_before_the_coordinators_answer(leaving: int) -> None:
    """The coordinator's answer crawls to the rank that leaves; the others, who hear it at once, acknowledge long before."""
    links = Links(latency=lambda source, dest: 1.0 if (source, dest) == (0, leaving) else 1e-6)
    world = SimulatedWorld(4, links=links)
    cluster = Cluster(4, world=world)
    collectives = cluster.collectives[leaving]
    task = world.endpoints[leaving].spawn(collectives.depart(timeout=10.0), "depart")
    world.run([task])
    assert task.error() is None
    assert world.endpoints[leaving].now() < 2.0
