"""How long an epoch takes against the ideal, and how many messages it costs."""

from __future__ import annotations

import pytest

from hvd_gossip.transport.simulated_links import Links, uniform
from tests.marks import slow_except
from tests.sharing.shift import Shift

STEP = 0.05
NEAR = Links(latency=0.5e-3, delay=uniform(0.0, 1e-3))
"""What an engine that polls every millisecond makes of a fast network."""
CROWDED = Links(latency=1e-3, delay=uniform(0.0, 6e-3))
"""What becomes of it where many ranks share a core."""


def epoch_ends(shift: Shift, ranks: range) -> list[float]:
    return [max(shift.ended[epoch, rank] for rank in ranks) for epoch in range(shift.epochs)]


@pytest.mark.parametrize("slowdown", [1, 2, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("seed", slow_except(range(3), 0))
def test_sixteen_workers_one_of_them_slow_end_within_three_percent_of_the_ideal(slowdown: int, seed: int) -> None:
    """50,000 samples in batches of 32; ideal: all of them at the speed of n - 1 + 1/slowdown workers."""
    step_times = [STEP] * 15 + [STEP * slowdown]
    shift = Shift(step_times, units=50_000, batch=32, epochs=3, links=NEAR, seed=seed)
    ends = epoch_ends(shift.run_until_ended(range(15)), range(15))
    ideal = 50_000 / 32 * STEP / (15 + 1 / slowdown)
    assert ends[0] <= 1.03 * ideal
    assert ends[-1] <= 1.03 * ideal * shift.epochs
    slow_batches = ends[-1] / (STEP * slowdown) + shift.epochs
    assert len(shift.handed[0, 15]) <= 32 * slow_batches
    assert shift.total("wait_seconds") / 16 / shift.epochs < 0.01 * ideal
    assert shift.total("asked") / 16 / shift.epochs < 40


def test_the_slow_one_keeps_only_the_batch_in_its_hands() -> None:
    shift = Shift([STEP] * 15 + [STEP * 10_000], units=50_000, batch=32, links=NEAR).run_until_ended(range(15))
    assert len(shift.handed[0, 15]) == 32
    assert shift.services[15].stats().given == 50_000 // 16 - 32
    assert sorted(shift.counts(0).elements()) == list(range(50_000))


def test_its_share_goes_in_few_messages() -> None:
    """15 workers share out one's 3,093 samples: fewer than ten requests each that bring something."""
    shift = Shift([STEP] * 15 + [STEP * 10_000], units=50_000, batch=32, links=NEAR)
    grants = 0
    for service in shift.services:
        add = service._hear_reply

        def count(source: int, reply: object, add: object = add) -> None:
            nonlocal grants
            grants += bool(reply.granted)  # type: ignore[attr-defined]
            add(source, reply)  # type: ignore[operator]

        service._hear_reply = count  # type: ignore[method-assign]
    shift.run_until_ended(range(15))
    assert 15 <= grants < 150


def test_whole_batches_as_units_end_in_time_too() -> None:
    shift = Shift([STEP] * 15 + [STEP * 10_000], units=1563, links=NEAR).run_until_ended(range(15))
    assert max(epoch_ends(shift, range(15))) <= 1.03 * 1563 * STEP / 15


@pytest.mark.parametrize("slowdown", [1, 10_000])
@pytest.mark.parametrize("seed", slow_except(range(8), 0, 1))
def test_the_last_batches_go_to_whoever_is_free_first_and_few_wait_for_them(slowdown: int, seed: int) -> None:
    """Steps of unequal length and slow answers: the next batch is there before the one under way is done."""
    judged = range(16) if slowdown == 1 else range(15)  # nobody waits for one that is 10,000 times slower
    shift = Shift([STEP] * 15 + [STEP * slowdown], units=1600, links=CROWDED, seed=seed, jitter=0.02)
    ends = epoch_ends(shift.run_until_ended(judged), judged)
    ideal = 1600 * 1.02 * STEP / (15 + 1 / slowdown)
    assert max(ends) <= ideal + 0.75 * STEP
    assert shift.total("waits") < 16
    assert shift.total("asked") / 16 < 20


def test_workers_of_all_speeds_end_together() -> None:
    step_times = [STEP * (1 + 0.1 * rank) for rank in range(16)]
    shift = Shift(step_times, units=50_000, batch=32, epochs=2, links=NEAR).run()
    ideal = 50_000 / 32 / sum(1 / time for time in step_times)
    assert epoch_ends(shift, range(16))[-1] <= 1.04 * 2 * ideal
    shares = [len(shift.handed[0, rank]) for rank in range(16)]
    assert shares[0] > 2 * shares[15]


def test_without_a_straggler_nobody_waits_but_for_the_news_of_the_end() -> None:
    shift = Shift([STEP] * 8, units=6400, batch=32, links=NEAR).run()
    assert [len(shift.handed[0, rank]) for rank in range(8)] == [800] * 8
    assert shift.total("waits") <= 8
    assert shift.total("wait_seconds") / 8 < 0.01


@pytest.mark.slow
def test_a_thousand_ranks_with_one_slow() -> None:
    """20 batches each: the end is found within a few round trips, at a few dozen messages a rank."""
    size = 1024
    shift = Shift([STEP] * (size - 1) + [STEP * 10_000], units=size * 32 * 20, batch=32, links=NEAR, depart=False)
    shift.run_until_ended(range(size - 1))
    ideal = size * 20 * STEP / (size - 1)
    assert max(epoch_ends(shift, range(size - 1))) <= ideal + STEP + 0.03
    assert shift.total("asked") / size < 60
    counts = shift.counts(0)
    assert len(counts) == shift.units
    assert set(counts.values()) == {1}
