"""Gaps of dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.topology.spectrum import (
    convergence_rate,
    gap_of_rate,
    is_doubly_stochastic,
    period_gap,
    smallest_eigenvalue,
)

SHIFT = np.roll(np.eye(5), 1, axis=0)


def gap_of(*matrices: np.ndarray) -> float:
    return period_gap(lambda k: matrices[k], len(matrices))


def random_doubly_stochastic(rng: np.random.Generator, size: int) -> np.ndarray:
    """A mixture of permutations."""
    shares = rng.dirichlet(np.ones(4))
    mixture: np.ndarray = np.sum([share * np.eye(size)[rng.permutation(size)] for share in shares], axis=0)
    return mixture


def test_gap_of_doubly_stochastic_matrices_is_by_the_product_s_second_singular_value() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 7, 20):
        period = [random_doubly_stochastic(rng, size) for _ in range(3)]
        second = np.linalg.svd(period[2] @ period[1] @ period[0], compute_uv=False)[1]
        assert gap_of(*period) == pytest.approx(1 - second ** (1 / 3), abs=1e-9)


def test_gap_of_column_stochastic_matrices_is_by_the_product_s_second_eigenvalue() -> None:
    rng = np.random.default_rng(1)
    for size in (2, 3, 7, 20):
        period = [rng.dirichlet(np.ones(size), size).T for _ in range(2)]
        second = np.sort(np.abs(np.linalg.eigvals(period[1] @ period[0])))[-2]
        assert gap_of(*period) == pytest.approx(1 - second**0.5, abs=1e-7)
        rows = [matrix.T for matrix in reversed(period)]
        assert gap_of(*rows) == pytest.approx(1 - second**0.5, abs=1e-7)


def test_push_sum_converges_at_the_gap_s_rate() -> None:
    """The de-biased values, of a matrix whose singular values tell nothing (the second is above 1)."""
    funnel = np.array([[0.9, 0.05, 0.05, 0.0], [0.95, 0.0, 0.05, 0.0], [0.1, 0.0, 0.85, 0.05], [0.1, 0.0, 0.9, 0.0]]).T
    assert np.linalg.svd(funnel, compute_uv=False)[1] > 1
    values, weights = np.arange(4.0), np.ones(4)
    distances = []
    for _ in range(40):
        values, weights = funnel @ values, funnel @ weights
        distances.append(np.abs(values / weights - 1.5).max())
    assert distances[-1] / distances[-2] == pytest.approx(1 - gap_of(funnel), abs=1e-3)


def test_extremes() -> None:
    assert gap_of(np.ones((1, 1))) == 1.0
    assert gap_of(np.full((6, 6), 1 / 6)) == 1.0
    assert gap_of(np.eye(4)) == pytest.approx(0, abs=1e-12)
    assert gap_of(SHIFT) == pytest.approx(0, abs=1e-12)
    assert gap_of_rate(1 + 1e-15) == 0.0
    assert gap_of_rate(-1e-15) == 1.0


def test_long_period_neither_underflows_nor_passes_for_exact_averaging() -> None:
    matrix = 0.5 * np.eye(5) + 0.1
    assert gap_of(*[matrix] * 3000) == pytest.approx(0.5, abs=1e-9)


def test_product_that_averages_exactly_has_gap_one_however_long_the_period() -> None:
    average = np.full((5, 5), 0.2)
    assert gap_of(*[0.5 * np.eye(5) + 0.1] * 20, average) == 1.0


def test_convergence_rate_tells_cycles_from_slow_mixing() -> None:
    assert convergence_rate(lambda _: SHIFT, 1) == pytest.approx(1)
    assert convergence_rate(lambda _: 0.9 * SHIFT + 0.1 * np.eye(5), 1) < 0.95


def test_doubly_stochastic_means_rows_and_columns() -> None:
    assert is_doubly_stochastic(SHIFT)
    assert is_doubly_stochastic(np.full((3, 3), np.float64(np.float32(1 / 3))))
    assert not is_doubly_stochastic(np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert not is_doubly_stochastic(np.array([[1.0, 0.0], [1.0, 0.0]]))


def test_smallest_eigenvalue() -> None:
    assert smallest_eigenvalue(np.array([[0.25, 0.75], [0.75, 0.25]])) == pytest.approx(-0.5)
