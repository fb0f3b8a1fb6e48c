"""Medians, quartiles, and arithmetic of measurements that were made in pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.spread import Spread, inverse

FINITE = st.floats(1e-3, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_median_and_quartiles_are_numpys(values: list[float]) -> None:
    spread = Spread.of(values)
    expected = np.quantile(values, [0.25, 0.5, 0.75])
    assert np.allclose([spread.low, spread.median, spread.high], expected)
    assert min(values) <= spread.low <= spread.median <= spread.high <= max(values)


def test_one_disturbed_measurement_does_not_move_the_median() -> None:
    assert Spread.of([5.0, 5.0, 5.0, 5.0, 900.0]).median == 5.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_no_measurement_or_one_that_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one measurement, all finite"):
        Spread.of(values)


def test_pairs_are_combined_one_by_one() -> None:
    """A disturbance that hits both of a pair leaves their ratio alone, whatever it does to the medians."""
    mine, baseline = Spread.of([2.0, 20.0, 2.0]), Spread.of([1.0, 10.0, 1.0])
    assert (mine / baseline).values == (2.0, 2.0, 2.0)
    assert (mine - baseline).values == (1.0, 10.0, 1.0)
    assert (mine * 1e3).values == (2000.0, 20000.0, 2000.0)
    assert (mine / 2.0).values == (1.0, 10.0, 1.0)
    assert inverse(mine).values == (0.5, 0.05, 0.5)


def test_unpaired_measurements_are_not_combined() -> None:
    with pytest.raises(ValueError):
        Spread.of([1.0, 2.0]) / Spread.of([1.0, 2.0, 3.0])
