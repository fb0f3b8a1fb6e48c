"""Rounds that are written out."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hvd_gossip.topology.table import MixingRound, TableTopology

MATRICES = st.integers(1, 8).flatmap(
    lambda size: npst.arrays(np.float64, (size, size), elements=st.sampled_from([0.0, 0.125, 0.5, 1.0]))
)


@given(MATRICES)
def test_matrix_survives_being_made_sparse(matrix: np.ndarray) -> None:
    round_ = MixingRound.of_matrix(matrix)
    np.testing.assert_array_equal(round_.matrix(), matrix)
    for rank in range(len(matrix)):
        assert dict(round_.rows[rank]) == {
            j: matrix[rank, j] for j in range(len(matrix)) if j != rank and matrix[rank, j]
        }
        assert dict(round_.columns[rank]) == {
            i: matrix[i, rank] for i in range(len(matrix)) if i != rank and matrix[i, rank]
        }


@given(MATRICES, st.floats(0, 0.99))
def test_lazy_round_mixes_in_the_identity(matrix: np.ndarray, laziness: float) -> None:
    lazy = MixingRound.of_matrix(matrix).lazy(laziness)
    np.testing.assert_allclose(lazy.matrix(), (1 - laziness) * matrix + laziness * np.eye(len(matrix)))


def test_what_is_not_given_away_is_kept() -> None:
    assert MixingRound.of_shares([{1: 0.25}, {}]).matrix().tolist() == [[0.75, 0.0], [0.25, 1.0]]


def test_weights_cannot_be_changed_from_outside() -> None:
    topology = TableTopology("table", [MixingRound.of_shares([{1: 0.25}, {}])])
    with pytest.raises(TypeError):
        topology.out_weights(0, 0)[1] = 1.0  # type: ignore[index]


def test_rounds_take_turns_and_the_pairs_come_from_all_of_them() -> None:
    rounds = [MixingRound.of_shares([{1: 0.5}, {}, {}]), MixingRound.of_shares([{}, {2: 0.5}, {}])]
    topology = TableTopology("table", rounds)
    assert topology.period == 2
    assert topology.out_weights(0, 4) == {1: 0.5}
    assert topology.out_weights(0, 5) == {}
    assert nx.utils.graphs_equal(topology.union(), nx.path_graph(3))
    assert topology.pairs() == ((0, 2), {0: (1,), 1: (0, 2), 2: (1,)})
