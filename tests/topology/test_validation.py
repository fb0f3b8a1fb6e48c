"""Conditions on topologies, and the messages when they are not met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np
import pytest

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.topology import Topology, fit_topology, make_topology, require_needs, require_smallest_eigenvalue
from hvd_gossip.topology.bipartite import Pairs, exponential_pairs
from hvd_gossip.topology.cayley import CayleyTopology

PUSH_SUM = make_topology(nx.DiGraph([(0, 1), (0, 2), (1, 2), (2, 0)]), 3)
SWAP = [[0.0, 1.0], [1.0, 0.0]]


class Random(Topology):
    """A user's own topology whose matrices never repeat."""

    def __init__(self, gap: float, matrix: np.ndarray) -> None:
        self.name, self.size, self.period = "own", len(matrix), None
        self._gap, self._matrix = gap, matrix

    def in_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return {other: w for other, w in enumerate(self._matrix[rank]) if other != rank and w}

    def out_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return {other: w for other, w in enumerate(self._matrix[:, rank]) if other != rank and w}

    def pairs(self) -> Pairs:
        return exponential_pairs(self.size)

    def matrix(self, round_: int = 0) -> np.ndarray:
        return self._matrix

    def spectral_gap(self) -> float:
        return self._gap


def test_push_sum_graph_is_column_stochastic_only() -> None:
    require_needs(PUSH_SUM, "column-stochastic")
    require_needs(PUSH_SUM, "bipartite")
    with pytest.raises(TopologyError, match=r"'graph': row 2 of the mixing matrix sums to 1\.33\d+, .*sgp, can use it"):
        require_needs(PUSH_SUM, "doubly-stochastic")


def test_columns_are_checked_for_push_sum_and_a_transposed_matrix_is_recognised() -> None:
    transposed = make_topology(PUSH_SUM.matrix().T, 3)
    for needs in ("column-stochastic", "doubly-stochastic"):
        with pytest.raises(
            TopologyError, match=r"'matrix': column 2 .*sums to 1\.33\d+, not to 1 \(the rows do: .*transposed"
        ):
            require_needs(transposed, needs)
    require_needs(transposed, "none")


def test_round_with_a_wrong_sum_is_named() -> None:
    wrong = make_topology([np.full((2, 2), 0.5), [[0.5, 0.5], [0.4, 0.5]]], 2)
    with pytest.raises(
        TopologyError, match=r"'matrix', round 1: column 0 of the mixing matrix sums to 0\.9, not to 1$"
    ):
        require_needs(wrong, "column-stochastic")


def test_sums_may_be_off_by_float32_s_rounding_but_not_by_four_digits() -> None:
    thirds = np.full((3, 3), 1 / 3)
    require_needs(make_topology(thirds.astype(np.float32), 3), "doubly-stochastic")
    with pytest.raises(TopologyError, match=r"sums to 0\.9999, not to 1"):
        require_needs(make_topology(thirds.round(4), 3), "doubly-stochastic")


@pytest.mark.parametrize("needs", ["doubly-stochastic", "column-stochastic", "bipartite"])
def test_disconnected_graph_meets_no_need_but_none(needs: str) -> None:
    apart = make_topology(nx.Graph([(0, 1), (2, 3)]), 4)
    require_needs(apart, "none")
    with pytest.raises(TopologyError, match=r"rank 2 \(2 of 4 ranks"):
        require_needs(apart, needs)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([(0, 1), (2, 0), (1, 0)], "no path leads from rank 0 to rank 2 (1 of 3 ranks)"),
        ([(0, 1), (0, 2), (1, 0)], "no path leads from rank 2 to rank 0 (1 of 3 ranks)"),
    ],
)
def test_directed_graph_must_be_strongly_connected(edges: list[tuple[int, int]], message: str) -> None:
    topology = make_topology(nx.DiGraph(edges), 3)
    with pytest.raises(TopologyError) as caught:
        require_needs(topology, "column-stochastic")
    assert message in str(caught.value)
    require_needs(topology, "bipartite")


def test_edges_of_all_rounds_count_together() -> None:
    pairing = np.kron(np.eye(2), np.full((2, 2), 0.5))
    other = pairing[np.ix_([0, 2, 1, 3], [0, 2, 1, 3])]
    require_needs(make_topology([pairing, other], 4), "doubly-stochastic")
    with pytest.raises(TopologyError, match=r"not connected: .*counting the edges of all 2 rounds"):
        require_needs(make_topology([pairing, pairing], 4), "doubly-stochastic")


def test_own_grid_that_is_not_connected_is_found() -> None:
    with pytest.raises(TopologyError, match=r"no path leads from rank 0 to rank 1 \(4 of 8 ranks\)"):
        require_needs(CayleyTopology("skips", (8,), [[(2,), (-2,)]]), "doubly-stochastic")


def test_matrices_that_only_swap_values_are_found_and_laziness_helps() -> None:
    with pytest.raises(
        TopologyError, match=r"never averages: .*rank 0 keeps nothing .*W\[0, 0\] is 0\); set a laziness"
    ):
        require_needs(make_topology(SWAP, 2), "doubly-stochastic")
    require_needs(make_topology(SWAP, 2, laziness=0.5), "doubly-stochastic")


def test_zeros_on_the_diagonal_do_no_harm_where_cycles_of_several_lengths_meet() -> None:
    triangle = (np.ones((3, 3)) - np.eye(3)) / 2
    require_needs(make_topology(triangle, 3), "doubly-stochastic")


def test_random_topology_of_one_s_own_is_judged_by_its_gap_and_first_matrix() -> None:
    require_needs(Random(0.5, np.full((2, 2), 0.5)), "doubly-stochastic")
    with pytest.raises(TopologyError, match="'own' has no spectral gap"):
        require_needs(Random(0.0, np.full((2, 2), 0.5)), "doubly-stochastic")
    with pytest.raises(TopologyError, match=r"'own': column 1 of the mixing matrix sums to 1\.5"):
        require_needs(Random(0.5, np.array([[1.0, 1.0], [0.0, 0.5]])), "column-stochastic")


def test_unknown_need_is_an_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'row-stochastic' .* valid: none, symmetric, fixed-symmetric, lazy-symmetric, doubly-stochastic, column",
    ):
        require_needs(PUSH_SUM, "row-stochastic")


@pytest.mark.parametrize("name", ["ring", "complete", "star", "torus", "hypercube"])
def test_smallest_eigenvalue_is_that_of_the_matrix(name: str) -> None:
    topology = make_topology(name, 8)
    smallest = np.linalg.eigvalsh(topology.matrix())[0]
    assert require_smallest_eigenvalue(topology, smallest - 1e-6) == pytest.approx(smallest)
    with pytest.raises(TopologyError):
        require_smallest_eigenvalue(topology, smallest + 1e-6)


def test_too_small_an_eigenvalue_is_an_error_with_the_laziness_that_does() -> None:
    matrix = np.array([[0.1, 0.9], [0.9, 0.1]])
    with pytest.raises(TopologyError, match=r"is -0\.8, not above -0\.333333; .* with l above 0\.259259"):
        require_smallest_eigenvalue(make_topology(matrix, 2), -1 / 3)
    lazy = make_topology(matrix, 2, laziness=0.26)
    assert require_smallest_eigenvalue(lazy, -1 / 3) == pytest.approx(0.74 * -0.8 + 0.26)
    with pytest.raises(TopologyError, match=r"is -1, .*with l above 0\.333333"):
        require_smallest_eigenvalue(make_topology(SWAP, 2), -1 / 3)


def test_smallest_eigenvalue_needs_one_symmetric_matrix() -> None:
    for name in ("one-peer-exponential", "random-matching", "bipartite"):
        with pytest.raises(TopologyError, match=f"'{name}' changes from round to round"):
            require_smallest_eigenvalue(make_topology(name, 8), -1 / 3)
    with pytest.raises(TopologyError, match=r"W\[0, 1\] is 0 but W\[1, 0\] is 0\.25; .*symmetric"):
        require_smallest_eigenvalue(make_topology("exponential", 8), -1 / 3)
    with pytest.raises(TopologyError, match=r"'graph': W\[1, 2\] is 0 but W\[2, 1\] is 0\.333333"):
        require_smallest_eigenvalue(make_topology(nx.DiGraph([(0, 2), (0, 1), (1, 0), (2, 0), (1, 2)]), 3), -1 / 3)


def test_one_worker_has_the_eigenvalue_one() -> None:
    assert require_smallest_eigenvalue(make_topology("ring", 1), -1 / 3) == 1.0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("name", ["chain", "star", "binary-tree"])
def test_trees_are_trees(name: str, size: int) -> None:
    topology = make_topology(name, size)
    require_needs(topology, "tree")
    assert fit_topology(topology, "tree") is topology


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ring", "has 4 edges among 4 ranks, hence a cycle; a tree has 3 (chain, star and binary-tree are trees)"),
        ("bipartite", "changes from round to round; a tree does not"),
        ("random-matching", "changes from round to round; a tree does not"),
        (nx.Graph([(0, 1), (2, 3)]), "not connected: no path leads from rank 0 to rank 2 (2 of 4 ranks)"),
        (nx.DiGraph([(0, 1), (1, 0), (1, 2), (2, 3), (3, 1)]), "the edge 1 -> 2 has no reverse"),
    ],
)
def test_what_is_no_tree_is_an_error_that_says_why(spec: Any, message: str) -> None:
    with pytest.raises(TopologyError) as caught:
        require_needs(make_topology(spec, 4), "tree")
    assert message in str(caught.value)


@pytest.mark.parametrize("needs", ["fixed-symmetric", "lazy-symmetric"])
def test_a_fixed_graph_does_not_change_from_round_to_round(needs: str) -> None:
    for name in ("one-peer-exponential", "random-matching", "bipartite"):
        with pytest.raises(TopologyError, match=f"'{name}' changes from round to round"):
            require_needs(make_topology(name, 8), needs)
        require_needs(make_topology(name, 1), needs)
    assert fit_topology(make_topology("exponential", 8), needs).name == "exponential (symmetrized)"


@pytest.mark.parametrize("name", ["ring", "torus", "hypercube", "star", "complete", "chain", "exponential"])
def test_lazy_symmetric_mixes_lazily_only_where_an_eigenvalue_is_too_small(name: str) -> None:
    for size in (1, 2, 4, 8, 16):
        topology = make_topology(name, size)
        symmetric, fitting = fit_topology(topology, "fixed-symmetric"), fit_topology(topology, "lazy-symmetric")
        enough = np.linalg.eigvalsh(symmetric.matrix())[0] > -1 / 3 + 1e-6
        assert fitting.name == (symmetric.name if enough else f"{symmetric.name} (laziness 0.5)")
        assert require_smallest_eigenvalue(fitting, -1 / 3) > -1 / 3
        if not enough:
            np.testing.assert_allclose(fitting.matrix(), (symmetric.matrix() + np.eye(size)) / 2)


def test_a_lazy_topology_s_parts_agree() -> None:
    topology = fit_topology(make_topology("ring", 6), "lazy-symmetric")
    matrix = topology.matrix()
    for rank in range(6):
        weights = dict(topology.in_weights(rank, 3))
        assert weights == topology.out_weights(rank, 3)
        np.testing.assert_allclose(
            matrix[rank],
            [weights.get(j, 1 - sum(weights.values())) if j == rank else weights.get(j, 0) for j in range(6)],
        )
    assert topology.spectral_gap() == pytest.approx(1 - np.sort(np.abs(np.linalg.eigvalsh(matrix)))[-2])
    assert topology.pairs() == make_topology("ring", 6).pairs()
    assert (topology.size, topology.period) == (6, 1)
