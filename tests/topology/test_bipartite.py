"""Bipartite forms: two sides, connected, and close to the graph that they come from."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given

from hvd_gossip.errors import TopologyError
from hvd_gossip.topology.bipartite import NeighboursAcross, Pairs, connected_cut, exponential_pairs, graph_pairs
from tests.topology.examples import connected_graphs


def crossing(graph: nx.Graph[int], side: dict[int, int]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in graph.edges if side[a] != side[b]]


def pairwise_rate(pairs: Pairs, size: int) -> float:
    """The gap of E[W^T W] when every initiator averages once with a neighbour drawn uniformly (W is a projection)."""
    initiators, neighbours = pairs
    drift = np.zeros((size, size))
    for rank in initiators:
        for other in neighbours[rank]:
            edge = np.zeros(size)
            edge[[rank, other]] = 1, -1
            drift += np.outer(edge, edge) / (2 * len(neighbours[rank]))
    return float(np.linalg.eigvalsh(drift)[1])


@given(connected_graphs())
def test_cut_connects_all_ranks_and_leaves_no_rank_with_more_edges_on_its_own_side(graph: nx.Graph[int]) -> None:
    side = connected_cut(graph)
    across: nx.Graph[int] = nx.Graph(crossing(graph, side))
    across.add_nodes_from(graph)
    assert nx.is_connected(across)
    for rank in graph:
        assert 2 * len(across[rank]) >= len(graph[rank])


@given(connected_graphs())
def test_bipartite_graph_keeps_every_edge(graph: nx.Graph[int]) -> None:
    _, neighbours = graph_pairs(graph, "test")
    kept = {frozenset((rank, other)) for rank, others in neighbours.items() for other in others}
    edges = {frozenset(edge) for edge in graph.edges}
    assert kept <= edges
    if nx.is_bipartite(graph):
        assert kept == edges


def test_larger_side_initiates() -> None:
    initiators, neighbours = graph_pairs(nx.star_graph(4), "star")
    assert list(initiators) == [1, 2, 3, 4]
    assert dict(neighbours) == {0: (1, 2, 3, 4), 1: (0,), 2: (0,), 3: (0,), 4: (0,)}


def test_side_of_rank_0_initiates_when_both_are_as_large() -> None:
    assert list(graph_pairs(nx.path_graph(4), "path")[0]) == [0, 2]


def test_complete_graph_becomes_the_balanced_complete_bipartite_one() -> None:
    initiators, neighbours = graph_pairs(nx.complete_graph(6), "complete")
    assert list(initiators) == [0, 2, 4]
    assert neighbours[0] == (1, 3, 5)


def test_pieces_that_parity_leaves_apart_are_joined() -> None:
    """A triangle of even ranks, one of odd ranks, one edge between: of an odd cycle one edge has to go, no more."""
    graph = nx.Graph([(0, 2), (2, 4), (4, 0), (1, 3), (3, 5), (5, 1), (0, 1)])
    side = connected_cut(graph)
    assert nx.is_connected(nx.Graph(crossing(graph, side)))
    assert len(crossing(graph, side)) == 5


def test_disconnected_graph_is_an_error_that_names_a_rank() -> None:
    graph = nx.Graph([(0, 1), (2, 3)])
    with pytest.raises(TopologyError, match="no path joins rank 0 and rank 2 \\(2 of 4 ranks"):
        graph_pairs(graph, "mine")


@pytest.mark.parametrize("size", [2, 4, 8, 64, 1000])
def test_exponential_family_pairs_at_odd_distances(size: int) -> None:
    _, neighbours = exponential_pairs(size)
    distances = {1, *(2**k + 1 for k in range(1, 10))}
    expected = {sign * d % size for d in distances if d < size for sign in (1, -1)}
    assert set(neighbours[0]) == expected


@pytest.mark.parametrize("size", [8, 15, 16, 17, 31, 33, 63, 64, 65, 255, 256, 257])
def test_exponential_family_mixes_far_faster_than_a_ring_whether_or_not_the_size_is_even(size: int) -> None:
    ring = graph_pairs(nx.path_graph(size) if size % 2 else nx.cycle_graph(size), "ring")
    fast = pairwise_rate(exponential_pairs(size), size)
    assert fast > 3 * pairwise_rate(ring, size)
    even = pairwise_rate(exponential_pairs(size + size % 2), size + size % 2)
    assert fast > 0.6 * even


def test_neighbours_are_a_mapping_over_all_ranks() -> None:
    across = NeighboursAcross(3, lambda rank: {2 - rank, 1})
    assert (len(across), list(across)) == (3, [0, 1, 2])
    assert dict(across) == {0: (1, 2), 1: (1,), 2: (0, 1)}
    assert 3 not in across
    with pytest.raises(KeyError):
        across[-1]
