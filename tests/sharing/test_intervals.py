"""Intervals as sets of units, and how much changes hands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.sharing.intervals import Interval, Intervals, Progress, fair_grant, nominal_share


def units_of(*intervals: Interval) -> list[int]:
    return [unit for start, stop in intervals for unit in range(start, stop)]


@given(st.integers(1, 40), st.integers(0, 1000))
def test_nominal_shares_are_all_units_once_and_differ_by_at_most_one(size: int, units: int) -> None:
    shares = [nominal_share(rank, size, units) for rank in range(size)]
    assert units_of(*shares) == list(range(units))
    lengths = [stop - start for start, stop in shares]
    assert max(lengths) - min(lengths) <= 1


def test_take_from_the_head_never_crosses_a_gap() -> None:
    intervals = Intervals([(0, 3), (10, 12)])
    assert intervals.take(2) == (0, 2)
    assert intervals.take(2) == (2, 3)
    assert intervals.take(9) == (10, 12)
    assert intervals.take(1) is None
    assert intervals.count == 0


def test_split_takes_the_tail_across_gaps_in_order() -> None:
    intervals = Intervals([(0, 3), (10, 12), (20, 21)])
    assert intervals.split(4) == ((2, 3), (10, 12), (20, 21))
    assert intervals.count == 2
    assert intervals.split(9) == ((0, 2),)
    assert intervals.split(1) == ()


@given(st.lists(st.tuples(st.sampled_from(["take", "split", "add"]), st.integers(0, 30)), max_size=40))
def test_no_unit_is_lost_or_doubled(operations: list[tuple[str, int]]) -> None:
    intervals, out, added = Intervals([(0, 50)]), [], 50
    for operation, count in operations:
        if operation == "take":
            taken = intervals.take(max(count, 1))
            out += units_of(*([taken] if taken else []))
        elif operation == "split":
            out += units_of(*intervals.split(count))
        else:
            intervals.extend([(added, added + count)])
            added += count
    assert intervals.count == added - len(out)
    out += units_of(*intervals.split(intervals.count))
    assert sorted(out) == list(range(added))


@pytest.mark.parametrize(
    ("own", "own_rate", "other_rate", "grant"),
    [
        (100, 5.0, 5.0, 50),  # equally fast: half
        (100, 5.0, 0.0, 50),  # an asker of unknown speed: half
        (100, 0.0, 5.0, 100),  # a worker that has not come yet keeps nothing
        (3000, 0.001, 10.0, 3000),  # one that is 10,000 times slower, too
        (100, 15.0, 5.0, 25),
        (1, 5.0, 5.0, 1),  # who waits gets the last one
        (0, 5.0, 5.0, 0),
    ],
)
def test_what_a_waiting_worker_gets(own: int, own_rate: float, other_rate: float, grant: int) -> None:
    own_progress, other = Progress(own, 0.0, own_rate), Progress(0, 0.0, other_rate)
    assert fair_grant(own_progress, other, want=1, urgent=True) == grant


def test_a_slow_worker_that_waits_gets_what_it_wants_and_at_most_half() -> None:
    assert fair_grant(Progress(100, 0.0, 1000.0), Progress(0, 0.0, 0.1), want=32, urgent=True) == 32
    assert fair_grant(Progress(40, 0.0, 1000.0), Progress(0, 0.0, 0.1), want=32, urgent=True) == 20


def test_looking_ahead_is_not_worth_a_few_units() -> None:
    assert fair_grant(Progress(60, 0.0, 1.0), Progress(40, 0.0, 1.0), want=32, urgent=False) == 10
    assert fair_grant(Progress(60, 0.0, 1.0), Progress(50, 0.0, 1.0), want=32, urgent=False) == 0
    assert fair_grant(Progress(10, 0.0, 1.0), Progress(40, 0.0, 1.0), want=1, urgent=False) == 0


@pytest.mark.parametrize(("own", "other", "grant"), [(0.7, 0.2, 1), (0.2, 0.7, 0)])
def test_the_last_unit_goes_to_the_one_that_is_free_first(own: float, other: float, grant: int) -> None:
    """Both work on a unit, of which so much is still to be done; one has another unit left."""
    assert fair_grant(Progress(1, own, 20.0), Progress(0, other, 20.0), want=1, urgent=False) == grant


def test_who_computes_for_long_keeps_nothing_back() -> None:
    assert fair_grant(Progress(1, 1.0, 0.002), Progress(0, 0.9, 20.0), want=1, urgent=False) == 1
    assert fair_grant(Progress(3, 0.1, 20.0), Progress(0, 1.0, 0.002), want=1, urgent=False) == 0


def progresses() -> st.SearchStrategy[Progress]:
    return st.builds(Progress, st.integers(0, 10_000), st.floats(0, 10_000), st.floats(0, 1e9))


@given(progresses(), progresses(), st.integers(1, 1000), st.booleans())
def test_a_grant_is_there_to_be_given_and_urgent_ones_never_fail(
    own: Progress, other: Progress, want: int, urgent: bool
) -> None:
    grant = fair_grant(own, other, want, urgent)
    assert 0 <= grant <= own.left
    assert grant > 0 or own.left == 0 or not urgent


@given(
    st.integers(1, 20),
    st.floats(0, 1),
    st.floats(0.1, 10),
    st.integers(0, 20),
    st.floats(0, 1),
    st.floats(0.1, 10),
)
def test_another_number_of_units_would_end_hardly_sooner(
    left: int, under_way: float, rate: float, other_left: int, other_under_way: float, other_rate: float
) -> None:
    """A grant is the whole number nearest to the best share, which may cost half a unit of the slower one's time."""
    own, other = Progress(left, under_way, rate), Progress(other_left, other_under_way, other_rate)

    def end(grant: int) -> float:
        return max((own.ahead - grant) / rate, (other.ahead + grant) / other_rate)

    best = min(end(grant) for grant in range(left + 1))
    assert end(fair_grant(own, other, want=1, urgent=False)) <= best + 0.5 / min(rate, other_rate) + 1e-9
