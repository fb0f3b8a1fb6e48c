"""Mixing weights of graphs."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.topology.table import MixingRound
from hvd_gossip.topology.weights import (
    Shares,
    check_weights,
    metropolis,
    own_shares,
    push_sum_shares,
    shares_of,
    uniform,
)
from tests.topology.examples import connected_graphs


def matrix_of(shares: Shares) -> np.ndarray:
    return MixingRound.of_shares(shares).matrix()


@given(connected_graphs())
def test_metropolis_and_uniform_are_symmetric_and_doubly_stochastic_with_a_share_kept(graph: nx.Graph[int]) -> None:
    for weights in (metropolis, uniform):
        matrix = matrix_of(weights(graph))
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_allclose(matrix.sum(axis=0), 1)
        assert matrix.diagonal().min() > 0
        adjacency = nx.to_numpy_array(graph, nodelist=range(len(graph)))
        np.testing.assert_array_equal((matrix > 0) & ~np.eye(len(graph), dtype=bool), adjacency > 0)


def test_weights_of_a_path() -> None:
    path = nx.path_graph(4)
    assert metropolis(path) == [{1: 1 / 3}, {0: 1 / 3, 2: 1 / 3}, {1: 1 / 3, 3: 1 / 3}, {2: 1 / 3}]
    assert uniform(path) == metropolis(path)


def test_metropolis_takes_the_larger_degree_of_an_edge_and_uniform_the_largest_of_all() -> None:
    graph = nx.Graph([(0, 1), (1, 2), (2, 3), (2, 4), (2, 5)])
    assert metropolis(graph)[1] == pytest.approx({0: 1 / 3, 2: 1 / 5})
    assert uniform(graph)[1] == pytest.approx({0: 1 / 5, 2: 1 / 5})


def test_directed_graph_takes_push_sum_s_shares_whatever_the_weights() -> None:
    graph = nx.DiGraph([(0, 1), (0, 2), (1, 2), (2, 0)])
    expected = [{1: 1 / 3, 2: 1 / 3}, {2: 1 / 2}, {0: 1 / 2}]
    assert push_sum_shares(graph) == expected
    assert shares_of(graph, "metropolis") == shares_of(graph, "uniform") == push_sum_shares(graph)
    np.testing.assert_allclose(matrix_of(push_sum_shares(graph)).sum(axis=0), 1)


def test_directed_graph_with_every_edge_both_ways_counts_as_undirected() -> None:
    path = nx.path_graph(5)
    assert shares_of(path.to_directed(), "metropolis") == metropolis(path)


def test_own_weights_are_the_shares_and_a_self_loop_what_is_kept() -> None:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_weighted_edges_from([(0, 1, 0.25), (1, 0, 0.5), (1, 1, 0.5), (1, 2, 0.0)])
    graph.add_node(2)
    shares, kept = own_shares(graph, "mine")
    assert shares == [{1: 0.25}, {0: 0.5}, {}]
    assert kept == [0.75, 0.5, 1.0]


def test_own_weights_of_an_undirected_graph_go_both_ways() -> None:
    graph: nx.Graph[int] = nx.Graph()
    graph.add_weighted_edges_from([(0, 1, 0.2), (1, 2, 0.3), (2, 2, 0.7)])
    shares, kept = own_shares(graph, "mine")
    assert shares == [{1: 0.2}, {0: 0.2, 2: 0.3}, {1: 0.3}]
    assert kept == pytest.approx([0.8, 0.5, 0.7])


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan"), float("inf"), "heavy", None])
def test_weight_that_is_no_share_is_an_error_that_names_the_edge(weight: object) -> None:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_edge(2, 1, weight=weight)
    graph.add_edge(0, 1, weight=0.5)
    with pytest.raises(TopologyError, match=r"'mine': edge 2 -> 1 has weight .*number from 0 to 1"):
        own_shares(graph, "mine")


def test_giving_away_more_than_everything_is_an_error_that_names_the_rank() -> None:
    graph: nx.Graph[int] = nx.Graph()
    graph.add_weighted_edges_from([(0, 1, 1.0), (1, 2, 1.0)])
    with pytest.raises(TopologyError, match=r"weights of rank 1's edges sum to 2; .* cannot exceed 1"):
        own_shares(graph, "mine")


def test_unknown_weights_are_an_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="'laplacian' are unknown; valid: metropolis, uniform"):
        check_weights("laplacian")
