"""A rest's edges: tokens that arrive when it is over, and exchanges under way when it begins."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from hvd_gossip.algorithms.meeting import RESTING, Meeting
from hvd_gossip.simulate import ComputeModel, Simulation, Still
from hvd_gossip.tasks import Future
from hvd_gossip.topology import make_topology
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links

CHANNEL = 70


class Peer:
    """Rank 0's meeting, and rank 1's tokens by hand: MPI may deliver one long after its sender thinks it is sent."""

    def __init__(self) -> None:
        self.world = SimulatedWorld(2)
        self.meeting = Meeting(self.world.endpoints[0], (1,), CHANNEL, wait_timeout=10)
        self.meeting.start()

    def rest(self, phase: int, round_: int) -> None:
        token = struct.pack("<bqq", RESTING, phase, round_)
        sent: Future[None] = self.world.endpoints[1].send(0, CHANNEL, token)
        self.world.run([sent])
        self.world.run(until=lambda: True)


def test_who_rests_is_absent_in_this_phase_and_all_later_ones() -> None:
    peer = Peer()
    peer.rest(2, 5)
    assert not peer.meeting.absent(1, 2, 4)
    assert peer.meeting.absent(1, 2, 5)
    assert peer.meeting.absent(1, 3, 0)
    peer.meeting.forget_before(3)
    assert peer.meeting.absent(1, 3, 0), "the end of a pause is not the end of a rest"


def test_a_rest_ends_for_everybody() -> None:
    peer = Peer()
    peer.rest(2, 5)
    peer.meeting.end_rests(4)
    assert not peer.meeting.absent(1, 4, 0)


def test_a_token_of_a_rest_that_is_over_is_dropped() -> None:
    peer = Peer()
    peer.meeting.end_rests(4)
    peer.rest(3, 9)
    assert not peer.meeting.absent(1, 4, 0)


def test_a_token_of_the_next_rest_may_come_before_this_worker_has_ended_the_last() -> None:
    peer = Peer()
    peer.rest(4, 1)
    peer.meeting.end_rests(4)
    assert not peer.meeting.absent(1, 4, 0)
    assert peer.meeting.absent(1, 4, 1)


@pytest.mark.parametrize("algorithm", ["dpsgd", "adpsgd", "sgp"])
def test_a_rest_begins_when_what_the_worker_has_begun_is_complete(algorithm: str) -> None:
    """A step starts an exchange that takes seconds; the resting worker's part of it ends first."""
    simulation = Simulation(
        algorithm,
        Still(np.arange(6.0).reshape(2, 3)),
        size=2,
        topology="complete",
        links=Links(latency=2.0),
        compute=ComputeModel(0.01),
    )
    (initiator,), _ = make_topology("complete", 2).pairs()
    resting, other = simulation.workers[initiator], simulation.workers[1 - initiator]
    finished: list[int] = []

    async def live(rests: bool) -> None:
        worker = resting if rests else other
        worker.algorithm.start()
        for wait in worker.algorithm.step(lambda: None):
            await wait()
        if rests:
            await worker.endpoint.sleep(1.0)
            assert worker.counters.exchanges == 0
            await worker.algorithm.rest()
            finished.append(worker.counters.exchanges)

    world = simulation.world
    world.run([world.endpoints[worker.rank].spawn(live(worker is resting), "living") for worker in simulation.workers])
    assert finished == [1]
