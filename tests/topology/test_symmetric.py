"""Directed mixing made symmetric."""

import numpy as np
import pytest

from hvd_gossip.topology import fit_topology, make_topology
from hvd_gossip.topology.symmetric import Symmetrized


@pytest.mark.parametrize("name", ["exponential", "one-peer-exponential"])
@pytest.mark.parametrize("size", [2, 3, 4, 7, 12])
def test_directed_rounds_become_symmetric_and_stay_doubly_stochastic(name: str, size: int) -> None:
    directed = make_topology(name, size)
    fitted = fit_topology(directed, "symmetric")
    for round_ in range(directed.period or 1):
        matrix = fitted.matrix(round_)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
        np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-12)
        np.testing.assert_allclose(matrix, (directed.matrix(round_) + directed.matrix(round_).T) / 2, atol=1e-15)
        for rank in range(size):
            off_diagonal = {peer: matrix[rank, peer] for peer in range(size) if peer != rank and matrix[rank, peer]}
            assert fitted.in_weights(rank, round_) == pytest.approx(off_diagonal)
            assert fitted.out_weights(rank, round_) == pytest.approx(off_diagonal)
    assert 0 < fitted.spectral_gap() <= 1


@pytest.mark.parametrize("name", ["ring", "complete", "torus", "random-matching", "bipartite"])
def test_symmetric_ones_are_left_alone(name: str) -> None:
    topology = make_topology(name, 6)
    assert fit_topology(topology, "symmetric") is topology


def test_other_needs_leave_directed_ones_alone() -> None:
    topology = make_topology("one-peer-exponential", 6)
    assert fit_topology(topology, "column-stochastic") is topology
    symmetrized = Symmetrized(topology)
    assert symmetrized.name == "one-peer-exponential (symmetrized)"
    assert symmetrized.pairs()[0] == topology.pairs()[0]
