"""One rank's part of a pool: what its two threads do to it."""

from __future__ import annotations

import threading

import pytest

from hvd_gossip.sharing import PoolKey, PoolSpec, SharedPool, SharingStats
from hvd_gossip.sharing.intervals import Interval
from hvd_gossip.sharing.messages import Request

KEY = PoolKey("train", 0)


class Clock:
    """A clock that is set by hand, and what a pool asks for more."""

    def __init__(self, units: int, lead_time: float = 0.01) -> None:
        self.time = 0.0
        self.calls = 0
        self.stats = SharingStats()
        self.pool = SharedPool(
            KEY,
            PoolSpec(units),
            [(0, units)],
            lock=threading.Lock(),
            stats=self.stats,
            now=lambda: self.time,
            lead_time=lambda: lead_time,
            on_low=self.count,
        )

    def count(self, pool: SharedPool) -> None:
        assert pool is self.pool
        self.calls += 1


def request(remaining: int = 0, taken: int = 0, seconds: float = 0.0, want: int = 1, urgent: bool = True) -> Request:
    return Request(1, KEY, PoolSpec(0), remaining, 0.0, taken, seconds, want, urgent, b"")


def test_units_come_from_the_head_and_go_from_the_tail() -> None:
    clock = Clock(10)
    assert clock.pool.take(3) == (0, 3)
    assert clock.pool.grant(request()) == ((5, 10),)
    assert clock.pool.remaining == 2
    assert clock.pool.empty() == ((3, 5),)
    assert clock.pool.take() is None
    assert (clock.stats.taken, clock.stats.given) == (3, 5)


def test_it_asks_for_more_before_a_burst_could_empty_it() -> None:
    """Batches of 8 every second: the time to ask is when less than two of them are left."""
    clock = Clock(40)
    asked_at: list[int] = []
    while clock.pool.remaining:
        clock.time += 1.0
        for _ in range(8):
            clock.pool.take()
        if clock.calls and not asked_at:
            asked_at.append(clock.pool.remaining)
    assert asked_at == [16]
    assert clock.calls == 1
    assert clock.pool.want == 8


def test_after_a_fruitless_search_it_asks_again_when_nothing_is_left() -> None:
    clock = Clock(40)
    while clock.pool.remaining > 16:
        clock.pool.take(8)
    assert clock.calls == 1
    clock.pool.look_again(fruitless=True)
    while clock.pool.remaining > 1:
        clock.pool.take()
    assert clock.calls == 1
    clock.pool.take()
    assert clock.calls == 2


def test_after_a_search_that_found_something_it_asks_again_when_it_is_low() -> None:
    clock = Clock(16)
    clock.pool.take(8)
    clock.pool.take(1)
    assert clock.calls == 1
    clock.pool.look_again(fruitless=False)
    clock.pool.take(1)
    assert clock.calls == 2


def test_a_request_says_how_fast_this_rank_is() -> None:
    clock = Clock(1000)
    clock.time = 50.0
    asked = clock.pool.request(7, urgent=False, table=b"table")
    assert asked == Request(7, KEY, PoolSpec(1000), 1000, 0.0, 0, 0.0, 1, False, b"table")
    clock.pool.take(10)
    clock.time = 52.0
    assert clock.pool.request(8, urgent=True, table=b"")[3:9] == (990, 10.0, 10, 2.0, 10, True)


def test_it_knows_when_its_training_thread_will_come_for_more() -> None:
    """Batches of 4 every second; of the last one a quarter of a second is over."""
    clock = Clock(1000)
    clock.pool.take(4)
    assert clock.pool.busy_for() == 0.0  # it has come only once: nobody knows
    for _ in range(3):
        clock.time += 1.0
        clock.pool.take(4)
    clock.time += 0.25
    assert clock.pool.busy_for() == pytest.approx(0.75)
    assert clock.pool.request(1, urgent=False, table=b"").under_way == pytest.approx(3.0)
    clock.time += 10.0
    assert clock.pool.busy_for() == 0.0


def test_shares_follow_the_speeds_and_fall_while_nothing_is_taken() -> None:
    """The asker takes 15 a second. This rank took 10 at once: after 2 s that is 5 a second, after 10 s one.

    It has not come back, so all 10 count as under way.
    """
    for seconds, granted in ((2.0, 758), (10.0, 947)):
        clock = Clock(1010)
        clock.pool.take(10)
        clock.time = seconds
        ((start, stop),) = clock.pool.grant(request(taken=30, seconds=2.0))
        assert stop == 1010
        assert stop - start == granted


def test_who_has_not_come_yet_is_taken_for_as_slow_as_it_must_be() -> None:
    """The asker has taken one burst of 10: they may be equally fast. It has taken 990: the other must be 99 times slower."""
    for taken, granted in ((10, 500), (990, 990)):
        assert (
            sum(stop - start for start, stop in Clock(1000).pool.grant(request(taken=taken, seconds=3.0, want=10)))
            == granted
        )


def test_who_has_left_keeps_nothing_and_asks_for_nothing() -> None:
    clock = Clock(100)
    clock.pool.take(10)
    clock.time = 1.0
    clock.pool.leave()
    assert clock.pool.grant(request(taken=1, seconds=10.0)) == ((10, 100),)
    clock.pool.add([(200, 201)])
    assert clock.pool.take() == (200, 201)
    assert clock.calls == 0


def test_a_training_thread_and_thieves_get_each_unit_once() -> None:
    """Two threads at full speed on one pool, for real; the thieves return half of what they got."""
    units = 30_000
    clock = Clock(units, lead_time=1e-9)
    stolen: list[Interval] = []
    done = threading.Event()

    def steal() -> None:
        while not done.is_set():
            for start, stop in clock.pool.grant(request(urgent=False)):
                middle = (start + stop) // 2
                stolen.append((start, middle))
                clock.pool.add([(middle, stop)])

    thief = threading.Thread(target=steal)
    thief.start()
    taken: list[int] = []
    while sum(stop - start for start, stop in stolen) + len(taken) < units:
        interval = clock.pool.take()
        taken += range(*interval) if interval else ()
    done.set()
    thief.join()
    taken += (unit for start, stop in stolen for unit in range(start, stop))
    assert sorted(taken) == list(range(units))
