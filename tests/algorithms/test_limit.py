"""Bounds on waits, and the typical pace of partners, in virtual time."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.algorithms.limit import Limit
from hvd_gossip.algorithms.pace import KEPT, SLACK, Pace
from hvd_gossip.errors import WaitTimeoutError
from hvd_gossip.tasks import Future
from hvd_gossip.transport.simulated import SimulatedWorld


def test_each_wait_ends_when_its_own_time_is_over_and_says_for_what() -> None:
    world = SimulatedWorld(1)
    limit = Limit(world.endpoints[0], 5.0)
    first = limit.watch(Future[None]("of no matter"), ("the answer of rank", 3))
    world.run(max_time=2.0)
    second = limit.watch(Future[None]("receiving from rank 4"))
    ended: dict[str, float] = {}
    first.add_callback(lambda _: ended.setdefault("first", world.now))
    second.add_callback(lambda _: ended.setdefault("second", world.now))
    world.run()
    assert ended == {"first": 5.0, "second": 7.0}
    for future, text in ((first, "the answer of rank 3"), (second, "receiving from rank 4")):
        with pytest.raises(WaitTimeoutError, match=f"rank 0 waited 5 s for {text}"):
            future.result()


def test_a_receive_that_took_too_long_is_withdrawn_and_a_task_is_closed() -> None:
    world = SimulatedWorld(2)
    here, there = world.endpoints
    limit, closed, into = Limit(here, 5.0), [], np.zeros(1)

    async def wait() -> None:
        try:
            await here.recv(1, 9, np.empty(1))
        finally:
            closed.append(world.now)

    receive, task = limit.watch(here.recv(1, 8, into)), limit.watch(here.spawn(wait()))
    world.run()
    with pytest.raises(WaitTimeoutError, match="rank 0 waited 5 s for receiving from rank 1 on channel 8"):
        receive.result()
    with pytest.raises(WaitTimeoutError, match="receiving from rank 1 on channel 9"):
        task.result()
    assert closed == [5.0]
    there.send(0, 8, np.ones(1))
    world.run()
    assert into[0] == 0.0, "the message waits for the next receive"


def test_what_is_done_in_time_is_left_alone_however_much_it_is() -> None:
    world = SimulatedWorld(1)
    limit = Limit(world.endpoints[0], 5.0)
    late = limit.watch(Future[int]("late"))
    for number in range(1000):
        future = limit.watch(Future[int]("in time"))
        world.run(max_time=world.now + 0.004)
        future.set_result(number)
        assert future.result() == number
    world.run()
    assert isinstance(late.error(), WaitTimeoutError)


@pytest.mark.parametrize("seconds", [5.0, math.inf])
def test_nothing_is_left_to_happen_after_close(seconds: float) -> None:
    world = SimulatedWorld(1)
    limit = Limit(world.endpoints[0], seconds)
    future = limit.watch(Future[None]("something"))
    limit.close()
    world.run()
    assert (world.now, future.done()) == (0.0, False)


@given(
    reports=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, 30.0])), max_size=30),
    own=st.sampled_from([0.0, 0.25, 1.0, 7.0]),
)
def test_the_typical_pace_is_the_upper_median_of_the_newest_reports(
    reports: list[tuple[int, float]], own: float
) -> None:
    world = SimulatedWorld(1)
    pace = Pace(world.endpoints[0])
    newest: dict[int, float] = {}
    for peer, seconds in reports:
        pace.partner(peer, seconds)
        if seconds:
            newest[peer] = seconds
    timer = pace.timer(3)
    world.run()
    if newest:
        assert world.now == SLACK * 3 * statistics.median_high(newest.values())
    assert timer.done() == bool(newest)
    pace.seconds = own
    known = [*newest.values(), *([own] if own else [])]
    assert pace.typical() == (statistics.median_high(known) if known else 0.0)


def test_the_paces_of_the_partners_heard_last_count() -> None:
    world = SimulatedWorld(1)
    pace = Pace(world.endpoints[0])
    for peer in range(KEPT):
        pace.partner(peer, 100.0)
    pace.partner(0, 90.0)
    for peer in range(KEPT, 2 * KEPT - 1):
        pace.partner(peer, 1.0)
    assert pace.typical() == 1.0
    pace.timer(1)
    world.run()
    assert world.now == SLACK
    assert len(pace._partners) == len(pace._sorted) == KEPT
    assert pace._partners[0] == 90.0
