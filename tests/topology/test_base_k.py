"""Base-(k+1) graphs: few meetings a round, and the exact mean at the end of a period, at every size."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest

from hvd_gossip.topology.base_k import BaseGraph, base_rounds
from tests.topology.examples import dense_gap

SIZES = [*range(1, 41), 63, 77, 97]
BASES = (2, 3, 4, 5)


def period(topology: BaseGraph) -> list[np.ndarray]:
    assert topology.period is not None
    return [topology.matrix(round_) for round_ in range(topology.period)]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("size", SIZES)
def test_every_round_is_symmetric_and_doubly_stochastic_with_at_most_k_meetings(size: int, base: int) -> None:
    for matrix in period(BaseGraph("base", size, base)):
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=0, atol=1e-12)
        assert matrix.min() >= 0
        assert matrix.diagonal().min() > 0
        assert np.count_nonzero(matrix, axis=0).max() <= base


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("size", SIZES)
def test_a_period_averages_exactly_in_as_few_rounds_as_promised(size: int, base: int) -> None:
    product = np.eye(size)
    matrices = period(BaseGraph("base", size, base))
    for matrix in matrices:
        product = matrix @ product
    np.testing.assert_allclose(product, 1 / size, rtol=0, atol=1e-12)
    assert len(matrices) <= 2 * math.log(size, base) + 2


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("size", [2, 6, 7, 23, 40])
def test_two_periods_rounds_from_anywhere_average_exactly(size: int, base: int) -> None:
    """They hold a whole period, and no round undoes a mean."""
    matrices = period(BaseGraph("base", size, base)) * 3
    for first in range(len(matrices) // 3):
        values = np.random.default_rng(size).standard_normal(size)
        mean = values.mean()
        for matrix in matrices[first : first + 2 * len(matrices) // 3]:
            values = matrix @ values
        np.testing.assert_allclose(values, mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("base", "size", "rounds"), [(2, 5, 5), (2, 6, 4), (2, 7, 5), (2, 8, 3), (3, 9, 2), (4, 24, 3)]
)
def test_number_of_rounds_is_the_paper_s(base: int, size: int, rounds: int) -> None:
    """n = 6 is the paper's figure 4: four rounds, one fewer than the simple base graph; products of small factors need one
    round a factor."""
    assert BaseGraph("base", size, base).period == rounds


def test_base_2_of_eight_is_the_one_peer_hypercube() -> None:
    for digit, edges in enumerate(base_rounds(range(8), 2)):
        assert {frozenset(pair) for pair in edges} == {frozenset((rank, rank ^ 1 << digit)) for rank in range(8)}
        assert set(edges.values()) == {0.5}


def test_base_as_large_as_the_size_is_the_complete_graph() -> None:
    np.testing.assert_allclose(BaseGraph("base", 5, 5).matrix(), 1 / 5)


def test_edges_join_distinct_ranks_once_a_round() -> None:
    for edges in chain(*(base_rounds(range(size), base) for size in SIZES for base in BASES)):
        assert len({frozenset(pair) for pair in edges}) == len(edges)
        assert all(one != other for one, other in edges)


@pytest.mark.parametrize("laziness", [0.0, 0.25])
def test_gap_is_one_unless_mixed_lazily(laziness: float) -> None:
    topology = BaseGraph("base", 7, 3, laziness)
    assert topology.spectral_gap() == pytest.approx(dense_gap(period(topology)), abs=1e-7)
    assert (topology.spectral_gap() == 1.0) == (laziness == 0.0)
