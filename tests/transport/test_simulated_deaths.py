"""Deaths in a simulated world: whom they concern, when, and what becomes of messages under way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hvd_gossip.errors import PeerFailedError
from hvd_gossip.tasks import Future
from hvd_gossip.transport.endpoint import Endpoint
from hvd_gossip.transport.simulated import InFlight, SimulatedWorld
from hvd_gossip.transport.simulated_links import Links, exponential

DELAY = 0.5


def make(size: int = 3, **options: Any) -> SimulatedWorld:
    options.setdefault("links", Links(latency=0.1))
    return SimulatedWorld(size, detection_delay=DELAY, **options)


def failure_time(world: SimulatedWorld, future: Future[Any], peer: int) -> float:
    with pytest.raises(PeerFailedError, match=f"rank {peer} failed") as caught:
        world.run([future])
    assert caught.value.peer == peer
    return world.now


def test_a_pending_receive_fails_at_the_detection() -> None:
    world = make()
    receiving = world.endpoints[0].recv(1, 64, np.zeros(1))
    world.kill(1, at=1.0)
    assert failure_time(world, receiving, 1) == 1.5
    assert world.dead == world.detected == {1}


def test_operations_between_death_and_detection_fail_at_the_detection() -> None:
    world = make()
    world.kill(1, at=1.0)
    world.run(max_time=1.25)
    endpoint = world.endpoints[0]
    assert failure_time(world, endpoint.recv(1, 64, np.zeros(1)), 1) == 1.5


@pytest.mark.parametrize("eager_limit", [0, math.inf])
def test_a_send_to_a_dead_rank_fails_at_the_detection(eager_limit: float) -> None:
    world = make(eager_limit=eager_limit)
    world.kill(1, at=1.0)
    world.run(max_time=1.25)
    assert failure_time(world, world.endpoints[0].send(1, 64, np.zeros(4)), 1) == 1.5


def test_later_operations_fail_at_once() -> None:
    world = make()
    world.kill(1)
    world.run()
    endpoint = world.endpoints[0]
    for future in (endpoint.recv(1, 64, np.zeros(1)), endpoint.send(1, 64, b"x")):
        assert future.done()
        assert isinstance(future.error(), PeerFailedError)


def test_a_send_that_waits_for_its_receive_fails() -> None:
    world = make(eager_limit=0)
    sending = world.endpoints[0].send(1, 64, np.zeros(4))
    world.kill(1, at=1.0)
    assert failure_time(world, sending, 1) == 1.5


def test_a_send_whose_bytes_are_under_way_fails_when_they_would_have_arrived() -> None:
    world = make(eager_limit=0, links=Links(latency=0.1, bandwidth=1.0))
    sending = world.endpoints[0].send(1, 64, np.zeros(4, np.uint8))
    world.endpoints[1].recv(0, 64, np.zeros(4, np.uint8))
    world.kill(1, at=1.0)
    assert failure_time(world, sending, 1) == pytest.approx(4.3)


def test_others_go_on() -> None:
    world = make()
    receiving = world.endpoints[0].recv(2, 64, np.zeros(1))
    anybody = world.endpoints[0].recv_any(1)
    world.kill(1)
    world.run()
    assert not receiving.done()
    assert not anybody.done()
    world.endpoints[2].send(0, 64, np.ones(1))
    world.endpoints[2].send(0, 1, b"x")
    assert world.run([receiving, anybody])


def test_tasks_of_the_dead_end_and_say_nothing_more() -> None:
    world = make()
    log = []

    async def chatter(endpoint: Endpoint) -> None:
        try:
            while True:
                await endpoint.sleep(1.0)
                log.append(endpoint.now())
        finally:
            endpoint.send(0, 64, b"last words")
            endpoint.spawn(chatter(endpoint))

    task = world.endpoints[1].spawn(chatter(world.endpoints[1]))
    receiving = world.endpoints[0].recv(1, 64, np.zeros(10, np.uint8))
    world.kill(1, at=2.5)
    world.kill(1, at=2.6)
    assert world.run([task])
    assert log == [1.0, 2.0]
    failure_time(world, receiving, 1)
    assert world.run()


def test_a_rank_may_have_itself_killed() -> None:
    world = make()

    async def give_up(endpoint: Endpoint) -> None:
        world.kill(endpoint.rank)
        await endpoint.sleep(1.0)
        raise AssertionError("it lives on")

    assert world.run([world.endpoints[1].spawn(give_up(world.endpoints[1]))])
    assert world.now == 0.0


def messages_received(in_flight: InFlight, *, seed: int = 0, eager_limit: float = math.inf) -> list[int]:
    """Rank 1 sends 20 numbers over a second and dies in the middle; which ones rank 0 got."""
    world = make(in_flight=in_flight, seed=seed, eager_limit=eager_limit, links=Links(latency=0.2))
    got: list[int] = []

    async def count(endpoint: Endpoint) -> None:
        for number in range(20):
            endpoint.send(0, 64, np.array([number]))
            await endpoint.sleep(0.05)

    async def collect(endpoint: Endpoint) -> None:
        into = np.zeros(1, np.int64)
        while True:
            await endpoint.recv(1, 64, into)
            got.append(int(into[0]))

    world.endpoints[1].spawn(count(world.endpoints[1]))
    collector = world.endpoints[0].spawn(collect(world.endpoints[0]))
    world.kill(1, at=0.51)
    assert failure_time(world, collector, 1) == pytest.approx(1.01)
    return got


def test_messages_in_flight_are_delivered_or_dropped() -> None:
    assert messages_received("delivered") == list(range(11))
    assert messages_received("dropped") == list(range(7))


def test_a_random_cut_leaves_no_gap() -> None:
    counts = set()
    for seed in range(30):
        got = messages_received("random", seed=seed)
        assert got == list(range(len(got)))
        counts.add(len(got))
    assert min(counts) == 7
    assert len(counts) >= 4


def test_a_long_message_of_the_dead_is_lost_unless_its_bytes_were_under_way() -> None:
    assert messages_received("delivered", eager_limit=0) == [0]
    assert messages_received("dropped", eager_limit=0) == []


def unread_message(in_flight: InFlight) -> Future[None]:
    world = make(in_flight=in_flight)
    world.endpoints[1].send(0, 64, np.ones(1))
    world.endpoints[1].send(0, 1, b"x")
    world.run()
    world.kill(1)
    world.run()
    return world.endpoints[0].recv(1, 64, np.zeros(1))


def test_what_had_arrived_before_the_death_can_be_read_if_the_world_says_so() -> None:
    assert unread_message("delivered").error() is None
    assert isinstance(unread_message("dropped").error(), PeerFailedError)


def test_what_arrived_for_recv_any_is_dropped_alike() -> None:
    for in_flight, lost in (("delivered", False), ("dropped", True)):
        world = make(in_flight=in_flight)
        world.endpoints[0].recv_any(1).cancel()
        world.endpoints[1].send(0, 1, b"x")
        world.endpoints[2].send(0, 1, b"y")
        world.run()
        world.kill(1)
        world.run()
        assert world.endpoints[0].recv_any(1).result().source == (2 if lost else 1)


def test_an_announced_message_of_the_dead_never_comes() -> None:
    world = make(eager_limit=0)
    world.endpoints[1].send(0, 64, np.ones(4))
    world.kill(1, at=0.3)
    world.run(max_time=0.4)
    receiving = world.endpoints[0].recv(1, 64, np.zeros(4))
    assert failure_time(world, receiving, 1) == pytest.approx(0.8)
    again = world.endpoints[0].recv(1, 64, np.zeros(4))
    assert isinstance(again.error(), PeerFailedError)


def test_only_ranks_of_the_world_can_be_killed() -> None:
    with pytest.raises(ValueError, match="rank 3"):
        make().kill(3)


@pytest.mark.parametrize("in_flight", ["delivered", "dropped", "random"])
@pytest.mark.parametrize("eager_limit", [0, math.inf])
@pytest.mark.parametrize("seed", range(5))
def test_every_operation_ends_when_half_the_ranks_die(in_flight: InFlight, eager_limit: float, seed: int) -> None:
    links = Links(latency=0.1, delay=exponential(0.2))
    world = make(8, in_flight=in_flight, eager_limit=eager_limit, seed=seed, links=links)
    outcomes = {"done": 0, "failed": 0}

    async def talk(endpoint: Endpoint, peer: int) -> None:
        into = np.zeros(1)
        while True:
            for future in (endpoint.send(peer, 64, np.ones(1)), endpoint.recv(peer, 64, into)):
                try:
                    await future
                except PeerFailedError:
                    outcomes["failed"] += 1
                    return
                outcomes["done"] += 1
                await endpoint.sleep(0.01)

    for endpoint in world.endpoints:
        for peer in range(8):
            if peer != endpoint.rank and (peer < 4 or endpoint.rank < 4):
                endpoint.spawn(talk(endpoint, peer) if endpoint.rank < peer else answer(endpoint, peer, outcomes))
    for rank in range(4):
        world.kill(rank, at=1.0 + rank)
    assert world.run()
    assert outcomes["done"] > 20
    assert outcomes["failed"] >= 16


async def answer(endpoint: Endpoint, peer: int, outcomes: dict[str, int]) -> None:
    into = np.zeros(1)
    try:
        while True:
            await endpoint.recv(peer, 64, into)
            await endpoint.send(peer, 64, into)
    except PeerFailedError:
        outcomes["failed"] += 1
