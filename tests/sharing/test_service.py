"""The service between ranks: messages that come late or twice, disagreement, deaths, time-outs, stragglers' epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.sharing import PoolKey, PoolSpec, WorkSharing
from hvd_gossip.sharing.messages import Message, Reply, Request, decode, encode
from hvd_gossip.sharing.wire import REPLIES
from hvd_gossip.transport.endpoint import SHARING, Endpoint
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links
from tests.sharing.shift import Shift, start_service

KEY = PoolKey("train", 0)


def run(world: SimulatedWorld, *coroutines: Any) -> list[Any]:
    tasks = [world.endpoints[0].spawn(coroutine) for coroutine in coroutines]
    world.run(tasks, max_time=1e7)
    return [task.result() for task in tasks]


async def take_all(sharing: WorkSharing, key: PoolKey, units: int) -> list[int]:
    pool, taken = await sharing.open(key, PoolSpec(units)), list[int]()
    while (interval := await sharing.take(pool)) is not None:
        taken += range(*interval)
    return taken


class Peer:
    """A rank whose messages a test writes by hand: `answer` makes the reply to each request."""

    def __init__(self, endpoint: Endpoint, answer: Callable[[Request], list[Reply]]) -> None:
        self.endpoint = endpoint
        self.answer = answer
        self.replies: list[Message] = []
        endpoint.spawn(self._answer_requests())
        endpoint.spawn(self._hear_replies())

    async def _answer_requests(self) -> None:
        while True:
            source, data = await self.endpoint.recv_any(SHARING)
            request = decode(data)
            if isinstance(request, Request):
                for reply in self.answer(request):
                    await self.endpoint.send(source, REPLIES, encode(reply))
            else:
                self.endpoint.spawn(self.other(source, request))

    async def other(self, source: int, message: Message) -> None:
        """What it does about a message that is no request: nothing."""

    async def _hear_replies(self) -> None:
        while True:
            self.replies.append(decode((await self.endpoint.recv_any(REPLIES)).data))


def test_alone_a_worker_gets_everything_in_order_and_nobody_is_asked() -> None:
    world = SimulatedWorld(1)
    sharing = start_service(world.endpoints[0])
    assert run(world, take_all(sharing, KEY, 10)) == [list(range(10))]
    assert sharing.stats().asked == 0
    assert sharing.size == 1


def test_an_empty_pool_is_over_at_once() -> None:
    world = SimulatedWorld(2)
    services = [start_service(endpoint) for endpoint in world.endpoints]
    assert run(world, take_all(services[0], KEY, 0)) == [[]]


def test_a_pool_that_is_over_stays_over() -> None:
    world = SimulatedWorld(2)
    services = [start_service(endpoint) for endpoint in world.endpoints]
    assert sorted(run(world, take_all(services[0], KEY, 10))[0]) == list(range(10))
    assert run(world, take_all(services[1], KEY, 10), take_all(services[0], KEY, 10)) == [[], []]
    assert sorted(run(world, take_all(services[1], KEY._replace(repetition=1), 10))[0]) == list(range(10))


def test_a_repeated_reply_brings_its_units_once() -> None:
    """The peer answers everything twice; rank 0 must not hand out units 5 to 9 again."""
    world = SimulatedWorld(2)
    sharing = start_service(world.endpoints[0])
    left = [(5, 10)]

    def answer(request: Request) -> list[Reply]:
        if left:
            return [Reply(request.number, granted=(left.pop(),))] * 2
        return [Reply(request.number, exhausted=True)] * 2

    Peer(world.endpoints[1], answer)
    assert run(world, take_all(sharing, KEY, 10)) == [list(range(10))]


def test_a_repeated_request_is_answered_once() -> None:
    world = SimulatedWorld(2)
    start_service(world.endpoints[0])
    peer = Peer(world.endpoints[1], lambda request: [])
    request = Request(1, KEY, PoolSpec(10), 0, 0.0, 0, 0.0, 1, True, b"")

    async def ask() -> None:
        for number in (1, 1, 2, 1):
            await world.endpoints[1].send(0, SHARING, encode(request._replace(number=number)))
        await world.endpoints[1].sleep(1.0)

    run(world, ask())
    granted = [reply.granted for reply in peer.replies if isinstance(reply, Reply)]
    assert granted == [((3, 5),), ((2, 3),)] or granted == [((3, 5),), ((1, 3),)]


def test_a_late_reply_is_not_lost() -> None:
    """Rank 1 takes 5 s to answer its first request. Rank 0 asks rank 2 meanwhile, and still gets rank 1's units."""
    world = SimulatedWorld(3)
    sharing = start_service(world.endpoints[0])
    open_: list[Reply] = []

    def answer_late(request: Request) -> list[Reply]:
        open_.append(Reply(request.number, granted=((3, 6),)))
        return []

    late = Peer(world.endpoints[1], answer_late)

    async def send_late() -> None:
        await world.endpoints[1].sleep(5.0)
        late.answer = lambda request: [Reply(request.number, exhausted=True)]
        await world.endpoints[1].send(0, REPLIES, encode(open_[0]))

    gave: list[int] = []

    def answer(request: Request) -> list[Reply]:
        gave.append(request.number)
        return [Reply(request.number, granted=((6, 9),) if len(gave) == 1 else ())]

    Peer(world.endpoints[2], answer)
    taken, _ = run(world, take_all(sharing, KEY, 9), send_late())
    assert sorted(taken) == list(range(9))


def test_ranks_that_disagree_about_a_pool_are_told_on_both_sides() -> None:
    world = SimulatedWorld(2)
    services = [start_service(endpoint) for endpoint in world.endpoints]

    async def take(rank: int, units: int) -> str:
        with pytest.raises(HorovodInternalError) as caught:
            await take_all(services[rank], KEY, units)
        return str(caught.value)

    told = run(world, take(0, 10), take(1, 20))
    for message, other in zip(told, (1, 0), strict=True):
        assert "'train', epoch 0" in message
        assert "10 x units" in message
        assert "20 x units" in message
        assert f"on rank {other}" in message


def test_disagreement_about_a_pool_that_is_over_is_told_too() -> None:
    world = SimulatedWorld(2)
    services = [start_service(endpoint) for endpoint in world.endpoints]
    run(world, take_all(services[0], KEY, 10))
    with pytest.raises(HorovodInternalError, match=r"10 x units.*20 x units"):
        run(world, services[1].open(KEY, PoolSpec(20)))


def test_a_rank_that_is_still_in_the_pool_hears_that_another_opens_it_otherwise() -> None:
    """Rank 0 already has all units when rank 1 comes: it would never ask again."""
    world = SimulatedWorld(2)
    services = [start_service(endpoint) for endpoint in world.endpoints]

    async def come_late() -> None:
        pool = await services[0].open(KEY, PoolSpec(10))
        for _ in range(4):
            assert await services[0].take(pool) is not None
        await world.endpoints[0].sleep(1.0)  # with one unit left, it has asked rank 1
        with pytest.raises(HorovodInternalError, match=r"10 x units.*20 x units"):
            await services[1].open(KEY, PoolSpec(20))
        await world.endpoints[0].sleep(1.0)
        with pytest.raises(HorovodInternalError, match=r"on rank 1 it is 10 x units.*20 x units"):
            await take_all(services[0], KEY, 10)

    run(world, come_late())


def test_a_pool_that_another_rank_opened_otherwise_cannot_be_opened() -> None:
    world = SimulatedWorld(2)
    services = [start_service(endpoint) for endpoint in world.endpoints]

    async def disagree() -> None:
        await services[0].open(KEY, PoolSpec(10, "samples, seed 1"))
        with pytest.raises(HorovodInternalError, match=r"seed 1.*seed 2"):
            await services[0].open(KEY, PoolSpec(10, "samples, seed 2"))

    run(world, disagree())


def test_a_cancelled_take_keeps_nothing() -> None:
    """Its caller is gone (Ctrl-C) when the units come: the next take gets them."""
    world = SimulatedWorld(2, links=Links(latency=1.0))
    services = [start_service(endpoint) for endpoint in world.endpoints]

    async def take() -> list[int]:
        pool = await services[0].open(KEY, PoolSpec(20))
        taken = [*range(*(pool.take(10) or (0, 0)))]
        cancelled = world.endpoints[0].spawn(services[0].take(pool))
        await world.endpoints[0].sleep(0.5)
        cancelled.cancel()
        return taken + await take_all(services[0], KEY, 20)

    assert sorted(run(world, take())[0]) == list(range(20))


def test_a_rank_that_never_answers_is_named_when_the_time_is_over() -> None:
    world = SimulatedWorld(3)
    sharing = start_service(world.endpoints[0], wait_timeout=7.0)
    start_service(world.endpoints[2])
    Peer(world.endpoints[1], lambda request: [])

    async def take() -> float:
        with pytest.raises(WaitTimeoutError, match=r"'train', epoch 0.*7\.0 s.*ranks \[1\]"):
            await take_all(sharing, KEY, 9)
        return world.now

    assert 7.0 <= run(world, take())[0] <= 8.0


@pytest.mark.parametrize("in_flight", ["delivered", "dropped"])
def test_deaths_stop_nobody_and_hand_out_nothing_twice(in_flight: Any) -> None:
    """Two of five die in mid-epoch; the others get to the end with all units but those that sat with the dead."""
    shift = Shift([0.05, 0.05, 0.05, 0.05, 5.0], units=400, batch=4, epochs=2)
    shift.world.in_flight = in_flight
    shift.world.detection_delay = 0.3
    shift.world.kill(1, at=0.37)
    shift.world.kill(4, at=0.9)
    shift.run_until_ended([0, 2, 3])
    counts = shift.counts(0)
    assert set(counts.values()) == {1}
    assert 400 - 80 - 80 < len(counts) < 400
    assert set(shift.counts(1).values()) == {1}


def test_a_death_that_is_told_ends_the_wait_for_it() -> None:
    world = SimulatedWorld(2)
    sharing = start_service(world.endpoints[0])
    world.call_at(50.0, lambda: sharing.mark_failed(1))
    assert run(world, take_all(sharing, KEY, 4)) == [[0, 1]]
    assert 50.0 <= world.now < 51.0


def test_a_straggler_finds_its_share_of_later_epochs_taken() -> None:
    """Rank 2 is still at its first batch when the others are through five epochs; then it passes through them at once."""
    shift = Shift([0.05, 0.05, 1000.0], units=90, batch=3, epochs=5).run_until_ended([0, 1])
    assert shift.handed[0, 2] == [60, 61, 62]
    assert shift.world.now < 5.0
    shift.run()
    assert [len(shift.handed.get((epoch, 2), [])) for epoch in range(5)] == [3, 0, 0, 0, 0]
    assert shift.ended[4, 2] < 1000.2


def test_other_ranks_get_the_rest_of_a_worker_that_left_the_loop() -> None:
    world = SimulatedWorld(2, links=Links(latency=1e-3))
    services = [start_service(endpoint) for endpoint in world.endpoints]

    async def leave() -> list[int]:
        pool = await services[1].open(KEY, PoolSpec(100))
        first = [pool.take(), pool.take()]
        pool.leave()
        return [unit for interval in first if interval for unit in range(*interval)]

    left, rest = run(world, leave(), take_all(services[0], KEY, 100))
    assert left == [50, 51]
    assert sorted(left + rest) == list(range(100))


def test_the_same_seed_gives_the_same_run() -> None:
    def hand_out(seed: int) -> dict[tuple[int, int], list[int]]:
        links = Links(latency=1e-3, delay=lambda stream: stream.expovariate(1e3))
        return Shift([0.05, 0.06, 0.05, 0.5], units=200, batch=4, epochs=2, links=links, seed=seed).run().handed

    assert hand_out(3) == hand_out(3)
    assert hand_out(3) != hand_out(4)


def test_totals_add_up() -> None:
    shift = Shift([0.05, 0.05, 2.0], units=300, batch=4).run()
    assert shift.total("taken") == 300
    assert shift.total("stolen") == shift.total("given") > 50
    slow = shift.services[2].stats()
    assert slow.taken < 10
    assert slow.stolen == 0
    assert shift.services[0].stats().asked >= 2


def test_waits_are_counted() -> None:
    """With 2 s to the next rank the end of the epoch can't be known in the background of a step of 0.05 s."""
    shift = Shift([0.05, 0.05], units=40, batch=4, links=Links(latency=2.0)).run()
    for stats in shift.stats():
        assert stats.waits == 1
        assert 2.0 < stats.wait_seconds < 20.0
