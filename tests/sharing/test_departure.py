"""Leaving: nothing is lost, nobody is kept waiting, and the wait for the others is bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.sharing import PoolKey, PoolSpec, WorkSharing
from hvd_gossip.sharing.ledger import Ledger
from hvd_gossip.sharing.messages import Acknowledged, Departed, Handover, Message, Receipt, Reply, Request, encode
from hvd_gossip.sharing.wire import REPLIES
from hvd_gossip.transport.endpoint import SHARING, Endpoint
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links
from tests.sharing.shift import Shift, start_service
from tests.sharing.test_service import KEY, Peer, run, take_all


def world_of(size: int) -> tuple[SimulatedWorld, list[WorkSharing]]:
    world = SimulatedWorld(size, links=Links(latency=1e-3), seed=size)
    return world, [start_service(endpoint) for endpoint in world.endpoints]


def slow_links(seconds: dict[tuple[int, int], float]) -> Links:
    """Latencies of a millisecond, but for some links in one direction."""
    return Links(latency=lambda source, dest: seconds.get((source, dest), 1e-3))


class Heir(Peer):
    """A rank written by hand that acknowledges hand-overs late."""

    def __init__(self, endpoint: Endpoint, answer: Callable[[Request], list[Reply]], delay: float) -> None:
        super().__init__(endpoint, answer)
        self.delay = delay

    async def other(self, source: int, message: Message) -> None:
        if isinstance(message, Handover):
            await self.endpoint.sleep(self.delay)
            await self.endpoint.send(source, REPLIES, encode(Receipt(message.number, True, 1)))
        elif isinstance(message, Departed):
            await self.endpoint.send(source, SHARING, encode(Acknowledged()))


def sent(sharing: WorkSharing) -> list[Any]:
    """The messages that a service sends from now on."""
    messages: list[Any] = []
    send = sharing.wire.send

    def note(dest: int, message: Any) -> None:
        messages.append(message)
        send(dest, message)

    sharing.wire.send = note  # type: ignore[method-assign]
    return messages


def test_the_rest_of_an_open_pool_and_the_share_of_later_ones_pass_on() -> None:
    """Rank 1 takes three units of epoch 0 and leaves before anybody has heard of epoch 1."""
    world, services = world_of(3)

    async def leave() -> list[int]:
        pool = await services[1].open(KEY, PoolSpec(90))
        taken = [*range(*(pool.take(3) or (0, 0)))]
        await services[1].depart()
        return taken

    (taken,) = run(world, leave())
    assert taken == [30, 31, 32]
    for key, before in ((KEY, taken), (PoolKey("train", 1), [])):
        parts = run(world, take_all(services[0], key, 90), take_all(services[2], key, 90))
        assert sorted([*before, *parts[0], *parts[1]]) == list(range(90))


def test_estates_pass_through_several_hands() -> None:
    """Four of five leave one after the other; the last does every epoch alone."""
    world, services = world_of(5)

    async def leave_in_turn() -> None:
        for epoch, rank in enumerate((3, 0, 4, 1)):
            await services[rank].open(PoolKey("train", epoch), PoolSpec(50))
            await services[rank].depart()

    run(world, leave_in_turn())
    for epoch in range(6):
        assert sorted(run(world, take_all(services[2], PoolKey("train", epoch), 50))[0]) == list(range(50))
    assert services[2].stats().asked == 0


def test_all_leave_at_once_with_one_message_to_each_other_rank() -> None:
    world, services = world_of(6)
    logs = [sent(service) for service in services]
    run(world, *(service.depart() for service in services))
    assert world.run()
    for messages in logs:
        assert len([message for message in messages if isinstance(message, Departed)]) == 5
    assert world.now < 0.1


def test_a_departed_rank_takes_nothing_more() -> None:
    world, services = world_of(2)

    async def leave_and_take() -> None:
        pool = await services[0].open(KEY, PoolSpec(10))
        await services[0].depart()
        with pytest.raises(HorovodInternalError, match="rank 0 departs: pool 'train', epoch 0"):
            await services[0].take(pool)
        with pytest.raises(HorovodInternalError, match="rank 0 has departed"):
            await services[0].open(PoolKey("train", 1), PoolSpec(10))

    run(world, leave_and_take())


def test_a_take_under_way_fails_when_its_rank_departs() -> None:
    world, services = world_of(2)

    async def take() -> None:
        with pytest.raises(HorovodInternalError, match="rank 0 departs"):
            await take_all(services[0], KEY, 4)

    async def leave() -> None:
        await world.endpoints[0].sleep(1.5e-3)
        await services[0].depart()

    run(world, take(), leave())


def test_units_that_arrive_while_leaving_are_passed_on() -> None:
    """Rank 0's request is answered after it began to depart: what it gets goes to rank 1 or 2 with the rest."""
    world, services = world_of(3)

    async def leave() -> list[int]:
        pool = await services[0].open(KEY, PoolSpec(30))
        taken = [*range(*(pool.take(10) or (0, 0)))]
        await world.endpoints[0].sleep(0)
        assert len(services[0].requests) > 0
        await services[0].depart()
        return taken

    taken, *parts = run(world, leave(), take_all(services[1], KEY, 30), take_all(services[2], KEY, 30))
    assert sorted(taken + parts[0] + parts[1]) == list(range(30))


def test_a_grant_that_arrives_after_its_giver_has_left_is_waited_for() -> None:
    """What rank 0 sends to rank 1 takes 5 s: a grant first, then its departure. Rank 2, which
    hears of both from nobody else, must not think that all is over."""
    for seed in range(4):
        world = SimulatedWorld(3, links=slow_links({(0, 1): 5.0, (1, 2): 3.0}), seed=seed)
        services = [start_service(endpoint) for endpoint in world.endpoints]

        async def leave(world: SimulatedWorld, sharing: WorkSharing) -> list[int]:
            pool = await sharing.open(KEY, PoolSpec(30))
            while pool.remaining == 10:
                await world.endpoints[0].sleep(1e-4)
            await sharing.depart()
            return []

        async def take(world: SimulatedWorld, sharing: WorkSharing, start: float) -> list[int]:
            await world.endpoints[0].sleep(start)
            taken = await take_all(sharing, KEY, 30)
            assert world.now > 5.0
            return taken

        coroutines = (leave(world, services[0]), take(world, services[1], 0.0), take(world, services[2], 0.5))
        assert sorted(unit for part in run(world, *coroutines) for unit in part) == list(range(30))


def test_its_own_requests_are_answered_before_it_hands_over() -> None:
    """What rank 1 sends to rank 0 takes a second: a grant, asked for before rank 0 decided to leave."""
    for seed in range(4):
        world = SimulatedWorld(3, links=slow_links({(1, 0): 1.0}), seed=seed)
        services = [start_service(endpoint) for endpoint in world.endpoints]

        async def leave(world: SimulatedWorld, sharing: WorkSharing) -> list[int]:
            pool = await sharing.open(KEY, PoolSpec(30))
            taken = [*range(*(pool.take(10) or (0, 0)))]
            await world.endpoints[0].sleep(5e-4)
            await sharing.depart()
            return taken

        async def take_later(world: SimulatedWorld, sharing: WorkSharing) -> list[int]:
            await world.endpoints[0].sleep(3.0)
            return await take_all(sharing, KEY, 30)

        coroutines = (leave(world, services[0]), take_later(world, services[1]), take_later(world, services[2]))
        assert sorted(unit for part in run(world, *coroutines) for unit in part) == list(range(30))


def test_what_a_leaving_rank_refuses_goes_to_another() -> None:
    for seed in range(6):
        world = SimulatedWorld(3, links=Links(latency=1e-3), seed=seed)
        services = [start_service(endpoint) for endpoint in world.endpoints]

        async def leave(sharing: WorkSharing) -> None:
            await sharing.open(KEY, PoolSpec(30))
            await sharing.depart()

        run(world, leave(services[0]), leave(services[1]))
        assert sorted(run(world, take_all(services[2], KEY, 30))[0]) == list(range(30))


def test_nothing_is_over_while_a_hand_over_is_under_way() -> None:
    """Rank 1, written by hand, says that it has nothing, gets rank 0's units, and takes 2 s to acknowledge them."""
    world = SimulatedWorld(3, links=Links(latency=1e-3))
    services = [start_service(world.endpoints[rank]) for rank in (0, 2)]
    services[0].mark_failed(2)
    ledger = Ledger(1, np.zeros(3, np.int32), ())
    ledger.assert_empty(0)
    Heir(world.endpoints[1], lambda request: [Reply(request.number, table=ledger.table())], delay=2.0)

    async def leave() -> None:
        await services[0].open(KEY, PoolSpec(30))
        await services[0].depart()

    async def ask() -> float:
        pool = await services[1].open(KEY, PoolSpec(30))
        pool.take(10)
        world.endpoints[2].spawn(services[1].take(pool))
        while not pool.exhausted and world.now < 1.9:
            await world.endpoints[2].sleep(0.01)
        return world.now

    assert run(world, ask(), leave())[0] >= 1.9


def test_a_rank_that_does_not_answer_is_named_and_waited_for_no_longer_than_allowed() -> None:
    world = SimulatedWorld(3)
    sharing = start_service(world.endpoints[0])
    start_service(world.endpoints[2])
    Peer(world.endpoints[1], lambda request: [])
    sharing.mark_failed(2)

    async def leave() -> float:
        with pytest.raises(WaitTimeoutError, match=r"rank 0: departing.*4\.0 s.*ranks \[1\]"):
            await sharing.depart(timeout=4.0)
        return world.now

    assert run(world, leave())[0] == pytest.approx(4.0)


def test_dead_ranks_are_not_waited_for() -> None:
    world, services = world_of(4)
    world.kill(3, at=0.0)
    world.run(lambda: bool(world.detected))
    run(world, services[0].depart())
    assert world.now < 1.0


@pytest.mark.parametrize("death", [0.0005, 0.0015, 0.0025, 0.0035])
def test_a_death_in_the_middle_of_a_departure_is_noticed(death: float) -> None:
    world, services = world_of(3)
    world.detection_delay = 0.7
    world.kill(2, at=death)
    run(world, services[0].depart(), services[1].depart())
    assert world.now < 3.0


def test_workers_that_depart_in_mid_epoch_at_every_moment() -> None:
    """Rank 1 leaves after its k-th step, for every k of two epochs, beside a slow and a fast worker."""
    for steps in range(20):
        shift = Shift([0.05, 0.04, 0.5], units=120, batch=4, epochs=2, quits={1: steps}).run()
        for epoch in range(2):
            assert sorted(shift.counts(epoch).elements()) == list(range(120))
