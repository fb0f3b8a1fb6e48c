"""Topologies that the user gives as objects."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given

from hvd_gossip.errors import TopologyError
from hvd_gossip.topology.given import from_graph, from_matrices
from tests.topology.examples import assert_bipartite_form, connected_graphs, dense_gap

RING3 = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])
DIRECTED = [[0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]


@given(connected_graphs())
def test_graph_gives_its_edges_pairs_and_gap(graph: nx.Graph[int]) -> None:
    for weights in ("metropolis", "uniform"):
        topology = from_graph(graph, len(graph), weights=weights)
        for rank in graph:
            assert set(topology.in_weights(rank, 0)) == set(topology.out_weights(rank, 0)) == set(graph[rank])
        assert topology.spectral_gap() == pytest.approx(dense_gap([topology.matrix()]), abs=1e-9)
        assert {frozenset(edge) for edge in assert_bipartite_form(topology).edges} <= {
            frozenset(edge) for edge in graph.edges
        }


def test_graph_s_nodes_may_be_text_or_numpy_numbers_in_any_order() -> None:
    text = nx.relabel_nodes(nx.path_graph(4), str)
    numbers: nx.Graph[Any] = nx.Graph([(np.int64(3), np.int64(2)), (np.int64(1), np.int64(0)), (np.int64(2), 1)])
    for graph in (text, numbers):
        np.testing.assert_array_equal(from_graph(graph, 4).matrix(), from_graph(nx.path_graph(4), 4).matrix())


def test_edge_of_a_directed_graph_lets_its_source_give() -> None:
    topology = from_graph(nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)]), 3)
    assert topology.out_weights(0, 0) == pytest.approx({1: 1 / 3, 2: 1 / 3})
    assert topology.in_weights(2, 0) == pytest.approx({0: 1 / 3, 1: 1 / 2})
    np.testing.assert_allclose(topology.matrix().sum(axis=0), 1)


def test_weighted_edges_are_entries_of_the_matrix() -> None:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_weighted_edges_from([(0, 1, 0.5), (1, 2, 0.25), (2, 0, 1.0)])
    expected = [[0.5, 0, 1], [0.5, 0.75, 0], [0, 0.25, 0]]
    np.testing.assert_allclose(from_graph(graph, 3).matrix(), expected)


def test_self_loops_of_an_unweighted_graph_say_nothing() -> None:
    graph = nx.path_graph(3)
    graph.add_edge(1, 1)
    np.testing.assert_array_equal(from_graph(graph, 3).matrix(), from_graph(nx.path_graph(3), 3).matrix())
    assert graph.number_of_edges() == 3


def test_pairs_of_a_directed_graph_forget_the_directions() -> None:
    assert_bipartite_form(from_graph(nx.DiGraph([(0, 1), (2, 1), (2, 3)]), 4))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.path_graph(3), "is a graph of 3 nodes, but there are 4 workers"),
        (nx.relabel_nodes(nx.path_graph(4), {0: "a"}), "node 'a' is not a rank; the nodes must be the ranks 0 to 3"),
        (nx.relabel_nodes(nx.path_graph(4), {3: 4}), "node 4 is not a rank"),
        (nx.relabel_nodes(nx.path_graph(4), {3: 1.5}), "node 1.5 is not a rank"),
        (nx.relabel_nodes(nx.path_graph(4), {3: "0"}), "no node is rank 3"),
        (nx.MultiGraph(nx.path_graph(4)), "is a multigraph"),
    ],
)
def test_graph_that_is_not_over_the_ranks_is_an_error(graph: nx.Graph[Any], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        from_graph(graph, 4, name="mine")


def test_graph_with_some_weights_only_is_an_error_that_names_an_edge() -> None:
    graph = nx.path_graph(4)
    graph.edges[0, 1]["weight"] = graph.edges[2, 3]["weight"] = 0.5
    with pytest.raises(TopologyError, match="'mine': edge 1 -> 2 has no weight but others have"):
        from_graph(graph, 4, name="mine")


def test_matrix_is_taken_as_it_is() -> None:
    for matrix in (RING3, RING3.tolist(), RING3[np.newaxis], [RING3]):
        topology = from_matrices(matrix, 3)
        assert topology.period == 1
        np.testing.assert_array_equal(topology.matrix(), RING3)
    assert topology.in_weights(2, 9) == {0: 0.25, 1: 0.25}


def test_list_of_matrices_is_a_period() -> None:
    for matrices in ([RING3, np.array(DIRECTED)], np.stack([RING3, DIRECTED]), [RING3.tolist(), DIRECTED]):
        topology = from_matrices(matrices, 3, laziness=0.5)
        assert topology.period == 2
        np.testing.assert_array_equal(topology.matrix(3), 0.5 * np.array(DIRECTED) + 0.5 * np.eye(3))
        np.testing.assert_array_equal(topology.matrix(2), 0.5 * RING3 + 0.5 * np.eye(3))
    assert topology.out_weights(0, 1) == {1: 0.25}
    assert topology.in_weights(0, 1) == {2: 0.25}


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        (np.ones((2, 3)), r"the mixing matrix has the shape \(2, 3\); it must be square"),
        (np.ones(3), r"has the shape \(3,\)"),
        (np.ones((2, 2)), "is 2 x 2, but there are 3 workers"),
        ([RING3, np.ones((4, 4))], "mixing matrix of round 1 is 4 x 4, but there are 3 workers"),
        ([RING3, RING3 - 0.3], r"mixing matrix of round 1 has W\[0, 1\] = -0.05; what rank 0 takes from rank 1"),
        (np.where(np.eye(3) > 0, np.nan, RING3), r"W\[0, 0\] = nan; .* finite number, 0 or more"),
        (np.full((3, 3), np.inf), r"W\[0, 0\] = inf"),
        ([[1, 0], [0]], "is not a matrix of numbers or a list of such"),
        ([["a", "b"], ["c", "d"]], "is not a matrix of numbers"),
        (1j * RING3, "its entries are complex"),
        ([], "is not a matrix of numbers"),
        (np.ones((0, 3, 3)), "must be square"),
    ],
)
def test_what_is_no_mixing_matrix_is_an_error_that_says_where(matrices: Any, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        from_matrices(matrices, 3, name="mine")
