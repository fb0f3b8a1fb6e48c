"""The simulated world's clock: times of messages and timers, snapshots, runs, deadlocks."""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import pytest

from hvd_gossip.errors import ConfigError
from hvd_gossip.tasks import Signal
from hvd_gossip.transport.endpoint import Endpoint
from hvd_gossip.transport.simulated import DeadlockError, SimulatedWorld
from hvd_gossip.transport.simulated_links import Links

LATENCY, BANDWIDTH = 1e-3, 1e6
LINKS = Links(latency=LATENCY, bandwidth=BANDWIDTH)


# Times


def transfer(size: int) -> tuple[float, float]:
    """When a message of so many bytes is done for its sender, and for its receiver."""
    world = SimulatedWorld(2, links=LINKS)
    done: list[float] = []
    for future in (
        world.endpoints[0].send(1, 64, np.zeros(size, np.uint8)),
        world.endpoints[1].recv(0, 64, np.zeros(size, np.uint8)),
    ):
        future.add_callback(lambda _: done.append(world.now))
    world.run()
    return done[0], done[1]


def test_a_short_message_takes_latency_and_its_bytes() -> None:
    assert transfer(1000) == pytest.approx((2e-3, 2e-3))


def test_a_long_message_asks_first() -> None:
    assert transfer(10_000) == pytest.approx((13e-3, 13e-3))


def test_a_long_message_waits_for_its_receive() -> None:
    world = SimulatedWorld(2, links=LINKS, eager_limit=0)
    sending = world.endpoints[0].send(1, 64, np.zeros(1000, np.uint8))
    world.run()
    assert not sending.done()
    world.run([world.endpoints[0].sleep(1.0)])
    posted = world.now
    world.endpoints[1].recv(0, 64, np.zeros(1000, np.uint8))
    world.run([sending])
    assert world.now == pytest.approx(posted + 2 * LATENCY + 1000 / BANDWIDTH)


@pytest.mark.parametrize(("serialize", "last"), [(False, 2e-3), (True, 4e-3)])
def test_a_sender_interface_takes_one_message_at_a_time(serialize: bool, last: float) -> None:
    world = SimulatedWorld(4, links=Links(LATENCY, BANDWIDTH, serialize_send=serialize))
    world.run([world.endpoints[0].send(dest, 64, np.zeros(1000, np.uint8)) for dest in (1, 2, 3)])
    assert world.now == pytest.approx(last)


@pytest.mark.parametrize(("serialize", "last"), [(False, 2e-3), (True, 4e-3)])
def test_a_receiver_interface_takes_one_message_at_a_time(serialize: bool, last: float) -> None:
    world = SimulatedWorld(4, links=Links(LATENCY, BANDWIDTH, serialize_receive=serialize))
    world.run([world.endpoints[source].send(0, 64, np.zeros(1000, np.uint8)) for source in (1, 2, 3)])
    assert world.now == pytest.approx(last)


def test_sleep_moves_the_clock() -> None:
    world = SimulatedWorld(2)
    times = []

    async def nap(endpoint: Endpoint) -> None:
        for seconds in (0.0, 1.5, 2.0):
            await endpoint.sleep(seconds)
            times.append((endpoint.rank, endpoint.now()))

    for endpoint in world.endpoints:
        endpoint.spawn(nap(endpoint))
    world.run()
    assert times == [(0, 0.0), (1, 0.0), (0, 1.5), (1, 1.5), (0, 3.5), (1, 3.5)]


def test_a_cancelled_timer_does_not_move_the_clock_and_is_swept() -> None:
    world = SimulatedWorld(1)

    async def race() -> None:
        for _ in range(5000):
            limit = world.endpoints[0].sleep(1800.0)
            await world.endpoints[0].sleep(1e-3)
            limit.cancel()

    world.endpoints[0].spawn(race())
    world.run()
    assert world.now == pytest.approx(5.0)
    assert len(world._heap) < 2500


def test_an_endless_sleep_leaves_no_event() -> None:
    world = SimulatedWorld(1)
    timer = world.endpoints[0].sleep(math.inf)
    world.run()
    assert (world.now, timer.done()) == (0.0, False)


def test_poll_is_done_once_its_condition_holds() -> None:
    world = SimulatedWorld(1)
    endpoint = world.endpoints[0]
    assert endpoint.poll(lambda: True, "now").done()
    future = endpoint.poll(lambda: world.now >= 2.0, "the copy")
    never = endpoint.poll(lambda: False, "never")
    never.cancel()
    for time in (1.0, 2.0, 3.0):
        world.call_at(time, lambda: None)
    world.run([future])
    assert world.now == 2.0


# Snapshots


def send_and_change(seed: int, **options: Any) -> float:
    """Sends zeros that the sender turns to ones 1 ms into a transfer of 10 ms; what arrives."""
    world = SimulatedWorld(2, links=Links(latency=10e-3), seed=seed, **options)
    payload, into = np.zeros(2), np.full(2, -1.0)
    world.endpoints[0].send(1, 64, payload)
    world.call_at(1e-3, lambda: payload.fill(1.0))
    world.run([world.endpoints[1].recv(0, 64, into)])
    return float(into[0])


@pytest.mark.parametrize("eager_limit", [0, math.inf])
def test_the_latest_snapshot_sees_a_change_that_came_too_early(eager_limit: float) -> None:
    assert send_and_change(0, snapshot="latest", eager_limit=eager_limit) == 1.0


def test_a_random_snapshot_sees_it_as_often_as_its_moment_says() -> None:
    values = [send_and_change(seed, snapshot="random", eager_limit=math.inf) for seed in range(100)]
    assert set(values) == {0.0, 1.0}
    assert sum(values) > 80
    again = [send_and_change(seed, snapshot="random", eager_limit=math.inf) for seed in range(100)]
    assert values == again


# Running


def test_run_until_a_predicate_stops_right_then() -> None:
    world = SimulatedWorld(1)
    for time in (1.0, 2.0, 3.0):
        world.call_at(time, lambda: None)
    assert world.run(lambda: world.now >= 2.0)
    assert world.now == 2.0


def test_run_stops_at_its_time_and_goes_on_later() -> None:
    world = SimulatedWorld(1)
    nap = world.endpoints[0].sleep(3.0)
    assert not world.run([nap], max_time=2.0)
    assert (world.now, nap.done()) == (2.0, False)
    assert world.run([nap])
    assert world.now == 3.0


def test_run_raises_what_an_awaited_future_failed_with() -> None:
    world = SimulatedWorld(2)

    async def fail() -> None:
        await world.endpoints[1].sleep(1.0)
        raise ArithmeticError("boom")

    with pytest.raises(ArithmeticError, match="boom"):
        world.run([world.endpoints[1].spawn(fail()), world.endpoints[0].sleep(5.0)])
    assert world.now == 1.0


def test_the_failure_of_a_task_nobody_awaits_is_not_lost() -> None:
    world = SimulatedWorld(2)

    async def fail() -> None:
        raise ArithmeticError("boom")

    world.endpoints[1].spawn(fail(), ("responder", 3))
    with pytest.raises(RuntimeError, match="task rank 1 responder 3 failed") as caught:
        world.run()
    assert isinstance(caught.value.__cause__, ArithmeticError)


def test_the_past_cannot_be_changed() -> None:
    world = SimulatedWorld(1)
    world.run([world.endpoints[0].sleep(1.0)])
    with pytest.raises(ValueError, match=r"0\.5 has passed"):
        world.call_at(0.5, lambda: None)


def test_a_run_leaves_the_garbage_collector_as_it_was() -> None:
    world, before = SimulatedWorld(1), gc.get_threshold()
    during: list[tuple[int, int, int]] = []
    world.call_at(1.0, lambda: during.append(gc.get_threshold()))
    world.run()
    assert during[0] != before
    assert gc.get_threshold() == before


def test_bytes_are_counted_where_they_leave() -> None:
    world = SimulatedWorld(2, eager_limit=16)
    for size in (10, 100):
        world.endpoints[0].send(1, 64, np.zeros(size, np.uint8))
        world.endpoints[1].recv(0, 64, np.zeros(size, np.uint8))
    world.run()
    assert [endpoint.bytes_sent for endpoint in world.endpoints] == [110, 0]


# Deadlocks


def both_send_first(size: int, eager_limit: float) -> SimulatedWorld:
    world = SimulatedWorld(size, eager_limit=eager_limit)

    async def swap(endpoint: Endpoint) -> None:
        await endpoint.send((endpoint.rank + 1) % size, 64, np.zeros(8))
        await endpoint.recv((endpoint.rank - 1) % size, 64, np.zeros(8))

    for endpoint in world.endpoints:
        endpoint.spawn(swap(endpoint), "swap")
    return world


def test_a_program_that_counts_on_buffering_deadlocks_only_without_it() -> None:
    assert both_send_first(2, math.inf).run()
    with pytest.raises(DeadlockError) as caught:
        both_send_first(2, 0).run()
    assert str(caught.value).splitlines()[1:] == [
        "  rank 0: rank 0 swap, awaiting sending to rank 1 on channel 64",
        "  rank 1: rank 1 swap, awaiting sending to rank 0 on channel 64",
    ]


def test_a_deadlock_report_stays_short() -> None:
    with pytest.raises(DeadlockError, match="100 tasks wait") as caught:
        both_send_first(100, 0).run()
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (22, "  and 80 more")


def test_a_condition_that_can_never_hold_is_a_deadlock_too() -> None:
    with pytest.raises(DeadlockError, match="0 tasks wait"):
        SimulatedWorld(1).run(lambda: False)


def test_a_wait_inside_a_wait_is_named() -> None:
    world = SimulatedWorld(1)
    signal = Signal("the gate")

    async def outer() -> None:
        await world.endpoints[0].spawn(inner(), "inner")

    async def inner() -> None:
        await signal.wait()

    world.endpoints[0].spawn(outer(), "outer")
    with pytest.raises(DeadlockError, match="rank 0 outer, awaiting the gate"):
        world.run()


@pytest.mark.parametrize(
    ("side", "ends"), [("serialize_send", [(0, 4), (1, 5)]), ("serialize_receive", [(4, 0), (5, 1)])]
)
def test_ranks_of_a_host_share_its_interface(side: str, ends: list[tuple[int, int]]) -> None:
    links = Links(LATENCY, BANDWIDTH, ranks_per_interface=4, **{side: True})  # type: ignore[arg-type]
    world = SimulatedWorld(8, links=links)
    world.run([world.endpoints[source].send(dest, 64, np.zeros(1000, np.uint8)) for source, dest in ends])
    assert world.now == pytest.approx(LATENCY + 2 * 1000 / BANDWIDTH)


def test_messages_within_a_host_do_not_pass_its_interface() -> None:
    links = Links(LATENCY, BANDWIDTH, serialize_send=True, serialize_receive=True, ranks_per_interface=4)
    world = SimulatedWorld(8, links=links)
    world.run([world.endpoints[source].send(source + 1, 64, np.zeros(1000, np.uint8)) for source in (0, 1, 2)])
    assert world.now == pytest.approx(LATENCY + 1000 / BANDWIDTH)


def test_short_messages_pass_between_the_packets_of_long_ones() -> None:
    links = Links(LATENCY, BANDWIDTH, serialize_send=True, serialize_receive=True, express_bytes=10)
    world = SimulatedWorld(2, links=links)
    world.endpoints[0].send(1, 64, np.zeros(4000, np.uint8))
    short = world.endpoints[0].send(1, 65, bytes(10))
    world.run([short])
    assert world.now == pytest.approx(LATENCY + 10 / BANDWIDTH)


def test_an_array_stands_for_as_many_bytes_as_the_scale_says_and_a_token_for_its_own() -> None:
    world = SimulatedWorld(2, links=LINKS, payload_scale=500.0, eager_limit=100)
    into = np.zeros(2, np.uint8)
    world.endpoints[1].recv(0, 64, into)
    sent = [world.endpoints[0].send(1, 64, np.array([3, 4], np.uint8)), world.endpoints[0].send(1, 65, bytes(10))]
    world.run(sent[1:])
    assert world.now == pytest.approx(LATENCY + 10 / BANDWIDTH)
    world.run(sent[:1])
    assert world.now == pytest.approx(3 * LATENCY + 1000 / BANDWIDTH)
    assert into.tolist() == [3, 4]
    assert world.endpoints[0].bytes_sent == 1010


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_is_positive(scale: float) -> None:
    with pytest.raises(ConfigError, match="payload_scale must be positive"):
        SimulatedWorld(2, payload_scale=scale)
