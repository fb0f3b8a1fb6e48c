"""Whatever the workers' speeds, the messages' delays and the departures: each unit once, and everybody gets to the end."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.transport.simulated_links import Links, exponential
from tests.sharing.shift import Shift


@st.composite
def shifts(draw: st.DrawFn, quitting: bool) -> dict[str, Any]:
    size = draw(st.integers(1, 32))
    quits = st.dictionaries(st.integers(0, size - 1), st.integers(0, 30), max_size=size - 1)
    return {
        "step_times": draw(st.lists(st.sampled_from([0.01, 0.02, 0.05, 0.5, 20.0]), min_size=size, max_size=size)),
        "units": draw(st.integers(0, 400)),
        "batch": draw(st.sampled_from([1, 2, 7, 32])),
        "epochs": draw(st.integers(1, 3)),
        "links": Links(
            latency=draw(st.sampled_from([0.0, 1e-4, 5e-3])),
            delay=exponential(draw(st.sampled_from([1e-5, 1e-3, 0.2]))),
        ),
        "seed": draw(st.integers(0, 1000)),
        "quits": draw(quits) if quitting else {},
    }


def check_exactly_once(shift: Shift) -> None:
    for epoch in range(shift.epochs):
        counts = shift.counts(epoch)
        assert sorted(counts) == list(range(shift.units))
        assert set(counts.values()) <= {1}
        ends = [time for (of, _), time in shift.ended.items() if of == epoch]
        assert not ends or shift.last_taken.get(epoch, 0.0) <= min(ends)
    assert shift.total("taken") == shift.units * shift.epochs
    assert shift.total("stolen") <= shift.total("given")
    assert set(shift.departed) == set(range(shift.size))


@given(shifts(quitting=False))
@settings(max_examples=25)
def test_workers_that_stay_to_the_end(arguments: dict[str, Any]) -> None:
    shift = Shift(**arguments).run()
    check_exactly_once(shift)
    assert shift.total("stolen") == shift.total("given")
    assert len(shift.ended) == shift.epochs * shift.size


@given(shifts(quitting=True))
@settings(max_examples=25)
def test_workers_that_depart_at_any_moment(arguments: dict[str, Any]) -> None:
    check_exactly_once(Shift(**arguments).run())
