"""Ranks die without a word. The survivors' operations end; with a surviving coordinator, live_only ones go on."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.collectives import Collectives, Request, Result
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links
from tests.collectives.cluster import Cluster


@pytest.mark.parametrize("at", [1e-4, 4e-4, 1.2e-3])
def test_a_death_during_a_transfer_fails_it_on_all_survivors(at: float) -> None:
    """Also on those that exchange nothing with the dead rank: a neighbour tells the coordinator, which tells all."""
    world = SimulatedWorld(6)
    cluster = Cluster(6, world=world, eager_bytes=0)
    world.kill(2, at=at)
    futures = [c.submit(Request("x", "allreduce", np.ones(4_000_000, np.float32))) for c in cluster.collectives]
    world.run(max_time=1.0)
    for rank in (0, 1, 3, 4, 5):
        error = futures[rank].error()
        assert isinstance(error, HorovodInternalError)
        assert "x" in str(error)
        assert "rank 2" in str(error)


def test_survivors_go_on_among_themselves() -> None:
    world = SimulatedWorld(4)
    cluster = Cluster(4, world=world)

    async def main(rank: int, collectives: Collectives) -> Result | None:
        with pytest.raises(HorovodInternalError):
            await collectives.submit(Request("x", "allreduce", np.ones(1_000_000)))
        await world.endpoints[rank].sleep(0.1)
        with pytest.raises(HorovodInternalError, match="rank 3 has failed"):
            await collectives.submit(Request("y", "barrier"))
        result = await collectives.submit(Request("z", "allreduce", np.full(2, rank), live_only=True))
        await collectives.depart()
        return result

    tasks = [endpoint.spawn(main(endpoint.rank, cluster.collectives[endpoint.rank])) for endpoint in world.endpoints]
    world.kill(3, at=2e-4)
    world.run(tasks)
    world.run()
    for rank in range(3):
        assert tasks[rank].result()[:3] == (pytest.approx([1, 1]), (), (0, 1, 2))


def test_a_dead_coordinator_fails_what_is_submitted() -> None:
    world = SimulatedWorld(3)
    cluster = Cluster(3, world=world)
    world.kill(0, at=0.0)
    futures = [cluster.collectives[rank].submit(Request("x", "barrier")) for rank in (1, 2)]
    world.run(lambda: all(future.done() for future in futures))
    for future in futures:
        assert isinstance(future.error(), HorovodInternalError)
        assert "the coordinator, rank 0, cannot be reached" in str(future.error())
    world.run([world.endpoints[rank].spawn(cluster.collectives[rank].depart()) for rank in (1, 2)])


@pytest.mark.parametrize("after", [0.0, 2e-4, 5e-4, 9e-4, 1.5e-3, 3e-3])
def test_a_failure_told_to_a_coordinator_that_has_just_departed_is_told_to_the_next(after: float) -> None:
    latency, leaving = 1e-3, 0.1
    world = SimulatedWorld(6, links=Links(latency=latency, bandwidth=1e9))
    cluster = Cluster(6, world=world, eager_bytes=0)

    async def main(rank: int, collectives: Collectives) -> float:
        process_set = await collectives.add_process_set(range(1, 6))
        endpoint = world.endpoints[rank]
        await endpoint.sleep(leaving - endpoint.now())
        if rank == 0:
            await endpoint.sleep(2.2 * latency)  # the transfer has been agreed on, and lasts longer
            await collectives.depart()
            return 0.0
        request = Request("x", "allreduce", np.ones(4_000_000, np.float32), process_set=process_set)
        with pytest.raises(HorovodInternalError, match="rank 3"):
            await collectives.submit(request)
        return endpoint.now()

    tasks = [endpoint.spawn(main(endpoint.rank, cluster.collectives[endpoint.rank])) for endpoint in world.endpoints]
    world.kill(3, at=leaving + 2.2 * latency + after)
    world.run(lambda: all(task.done() for rank, task in enumerate(tasks) if rank != 3), max_time=10.0)
    assert max(tasks[rank].result() for rank in (1, 2, 4, 5)) < leaving + 0.1
