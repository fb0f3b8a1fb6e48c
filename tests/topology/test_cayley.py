"""Grids that wrap around: offsets, weights, spectrum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.topology.cayley import CayleyTopology
from tests.topology.examples import dense_gap


@st.composite
def grids(draw: st.DrawFn) -> CayleyTopology:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    offset = st.tuples(*(st.integers(-6, 6) for _ in shape))
    rounds = draw(st.lists(st.lists(offset, max_size=4), min_size=1, max_size=3))
    return CayleyTopology("grid", shape, rounds, draw(st.sampled_from([0.0, 0.5])))


@given(grids())
def test_matrix_is_built_as_the_weights_say(topology: CayleyTopology) -> None:
    for round_ in range(len(topology._shape)):
        built = np.zeros((topology.size, topology.size))
        for rank in range(topology.size):
            for other, weight in topology.in_weights(rank, round_).items():
                built[rank, other] = weight
        np.fill_diagonal(built, 1 - built.sum(axis=1))
        np.testing.assert_allclose(topology.matrix(round_), built, atol=1e-15)


@given(grids())
def test_eigenvalues_are_those_of_the_dense_matrix(topology: CayleyTopology) -> None:
    moments = [np.trace(np.linalg.matrix_power(topology.matrix(), power)) for power in range(1, 5)]
    expected = [np.sum(topology.eigenvalues() ** power) for power in range(1, 5)]
    np.testing.assert_allclose(moments, expected, atol=1e-9)
    assert topology.eigenvalues()[0] == pytest.approx(1)


@given(grids())
def test_gap_is_that_of_the_dense_product_even_if_nothing_is_connected(topology: CayleyTopology) -> None:
    assert topology.period is not None
    expected = dense_gap([topology.matrix(round_) for round_ in range(topology.period)])
    assert topology.spectral_gap() == pytest.approx(expected, abs=1e-7)


def test_offsets_that_wrap_to_one_place_count_once_and_those_that_lead_nowhere_not_at_all() -> None:
    topology = CayleyTopology("ring", (4,), [[(1,), (5,), (-3,), (4,), (0,)]])
    assert topology.out_weights(3, 0) == {0: 0.5}
    assert topology.in_weights(3, 0) == {2: 0.5}


def test_directions_of_the_grid_are_row_major() -> None:
    topology = CayleyTopology("grid", (2, 3), [[(0, 1)], [(1, 0)]])
    assert topology.out_weights(2, 0) == {0: 0.5}
    assert topology.out_weights(2, 1) == {5: 0.5}


def test_offset_of_another_dimension_is_an_error() -> None:
    with pytest.raises(ValueError):
        CayleyTopology("grid", (2, 3), [[(1,)]])


def test_gap_of_a_ring_is_the_textbook_s() -> None:
    for size in (4, 5, 9, 100, 4096):
        ring = CayleyTopology("ring", (size,), [[(1,), (-1,)]])
        assert ring.spectral_gap() == pytest.approx(1 - (1 + 2 * np.cos(2 * np.pi / size)) / 3, rel=1e-6)
