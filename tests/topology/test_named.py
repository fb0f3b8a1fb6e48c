"""What holds for every topology that goes by a name, at every size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.topology import TOPOLOGIES, Topology, make_topology, require_needs
from tests.topology.examples import (
    BASE,
    SYMMETRIC,
    TREES,
    assert_bipartite_form,
    dense_gap,
    named,
    named_arguments,
    rounds_of,
)


def union_of(topology: Topology) -> nx.Graph[int]:
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(topology.size))
    for round_ in rounds_of(topology):
        graph.add_edges_from((a, b) for a, b in np.argwhere(topology.matrix(round_)).tolist() if a != b)
    return graph


@given(named())
def test_every_matrix_is_doubly_stochastic_and_keeps_a_share(topology: Topology) -> None:
    for round_ in rounds_of(topology):
        matrix = topology.matrix(round_)
        assert matrix.shape == (topology.size, topology.size)
        assert matrix.dtype == np.float64
        assert matrix.min() >= 0
        assert matrix.diagonal().min() > 0
        np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-12)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


@given(named(SYMMETRIC))
def test_matrices_are_symmetric_where_promised(topology: Topology) -> None:
    for round_ in rounds_of(topology):
        np.testing.assert_array_equal(topology.matrix(round_), topology.matrix(round_).T)


@given(named())
def test_in_and_out_weights_are_the_rows_and_columns_of_the_matrix(topology: Topology) -> None:
    for round_ in rounds_of(topology):
        matrix = topology.matrix(round_)
        np.fill_diagonal(matrix, 0)
        for rank in range(topology.size):
            for weights, line in (
                (topology.in_weights(rank, round_), matrix[rank]),
                (topology.out_weights(rank, round_), matrix[:, rank]),
            ):
                assert set(weights) == set(np.flatnonzero(line).tolist())
                np.testing.assert_allclose([line[other] for other in weights], list(weights.values()), atol=1e-15)


@given(named(), st.integers(0, 100))
def test_matrices_repeat_after_a_period(topology: Topology, round_: int) -> None:
    if topology.period is not None:
        np.testing.assert_array_equal(topology.matrix(round_), topology.matrix(round_ + topology.period))


@given(named_arguments())
def test_ranks_agree_without_communication(arguments: tuple[tuple[str, int], Mapping[str, Any]]) -> None:
    (name, size), options = arguments
    mine, yours = make_topology(name, size, **options), make_topology(name, size, **options)
    for round_ in rounds_of(mine):
        np.testing.assert_array_equal(mine.matrix(round_), yours.matrix(round_))
    assert mine.pairs()[0] == yours.pairs()[0]
    assert dict(mine.pairs()[1]) == dict(yours.pairs()[1])


@given(named())
def test_pairs_are_a_connected_bipartite_form(topology: Topology) -> None:
    form = assert_bipartite_form(topology)
    initiators, _ = topology.pairs()
    if topology.size == 1:
        assert list(initiators) == []
    else:
        assert len(initiators) * 2 >= topology.size
        assert min(dict(form.degree()).values()) >= 1


@given(named(("ring", "torus", "hypercube", "bipartite", "complete", *BASE, *TREES)))
def test_pairs_keep_only_the_topology_s_own_edges_and_all_of_them_if_it_is_bipartite(topology: Topology) -> None:
    form, own = assert_bipartite_form(topology), union_of(topology)
    edges = {frozenset(edge) for edge in form.edges}
    own_edges = {frozenset(edge) for edge in own.edges}
    assert edges <= own_edges
    if nx.is_bipartite(own):
        assert edges == own_edges
    else:
        assert 2 * len(edges) >= len(own_edges)


@given(named(tuple(name for name in TOPOLOGIES if name != "random-matching"), largest=40))
def test_spectral_gap_is_that_of_the_dense_product(topology: Topology) -> None:
    assert topology.period is not None
    matrices = [topology.matrix(round_) for round_ in range(topology.period)]
    assert topology.spectral_gap() == pytest.approx(dense_gap(matrices), abs=1e-7)


@given(named())
def test_every_name_meets_every_need(topology: Topology) -> None:
    assert 0 < topology.spectral_gap() <= 1
    for needs in ("none", "doubly-stochastic", "column-stochastic", "bipartite"):
        require_needs(topology, needs)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_one_worker_has_no_neighbours_and_gap_one(name: str) -> None:
    topology = make_topology(name, 1, laziness=0.5)
    assert (topology.name, topology.size) == (name, 1)
    assert topology.in_weights(0, 0) == {}
    assert topology.out_weights(0, 3) == {}
    assert topology.matrix().tolist() == [[1.0]]
    assert topology.spectral_gap() == 1.0
    initiators, neighbours = topology.pairs()
    assert (list(initiators), dict(neighbours)) == ([], {0: ()})


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_four_thousand_workers_are_no_burden(name: str) -> None:
    """Dense 4,096 x 4,096 matrices would take 128 MB each; nothing here builds one (the time-out would tell)."""
    size = 4096
    topology = make_topology(name, size, hosts=[rank // 8 for rank in range(size)])
    for needs in ("doubly-stochastic", "column-stochastic", "bipartite"):
        require_needs(topology, needs)
    given_away = [topology.out_weights(rank, 5) for rank in range(0, size, 512)]
    assert all(
        other != rank and 0 <= other < size
        for rank, to in zip(range(0, size, 512), given_away, strict=True)
        for other in to
    )
    initiators, neighbours = topology.pairs()
    assert len(initiators) >= size // 2
    assert len(neighbours[size - 1]) >= 1


@pytest.mark.parametrize("size", [2, 4, 8, 32, 64, 256])
@pytest.mark.parametrize("name", ["one-peer-exponential", "bipartite"])
def test_a_period_averages_exactly_when_the_size_is_a_power_of_two(name: str, size: int) -> None:
    topology = make_topology(name, size)
    assert topology.period == math.log2(size)
    values = np.random.default_rng(size).normal(size=size)
    mixed = values
    for round_ in range(topology.period):
        mixed = topology.matrix(round_) @ mixed
    np.testing.assert_allclose(mixed, values.mean(), atol=1e-13)
    assert topology.spectral_gap() == 1.0


@pytest.mark.parametrize("size", [3, 5, 6, 7, 12, 48, 63])
def test_one_peer_exponential_takes_any_size(size: int) -> None:
    topology = make_topology("one-peer-exponential", size)
    assert topology.period == math.ceil(math.log2(size))
    for round_ in range(topology.period):
        assert topology.out_weights(1, round_) == {(1 + 2**round_) % size: 0.5}
        assert topology.in_weights(1, round_) == {(1 - 2**round_) % size: 0.5}
    assert topology.spectral_gap() > 0.2


@pytest.mark.parametrize("size", [3, 6, 8, 13])
def test_exponential_gives_equal_shares_at_all_powers_of_two(size: int) -> None:
    distances = [2**k for k in range(size) if 2**k < size]
    topology = make_topology("exponential", size)
    assert topology.out_weights(0, 7) == pytest.approx(dict.fromkeys(distances, 1 / (1 + len(distances))))


@pytest.mark.parametrize(("size", "sides"), [(12, (3, 4)), (16, (4, 4)), (30, (5, 6)), (14, (2, 7)), (36, (6, 6))])
def test_torus_is_the_most_square_grid(size: int, sides: tuple[int, int]) -> None:
    grid = nx.grid_2d_graph(*sides, periodic=True)
    expected = {frozenset((a * sides[1] + b, c * sides[1] + d)) for (a, b), (c, d) in grid.edges if (a, b) != (c, d)}
    assert {frozenset(edge) for edge in union_of(make_topology("torus", size)).edges} == expected


@pytest.mark.parametrize("size", [1, 2, 3, 5, 13, 61])
def test_torus_of_a_prime_size_is_a_ring(size: int) -> None:
    np.testing.assert_array_equal(make_topology("torus", size).matrix(), make_topology("ring", size).matrix())


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_hypercube_joins_ranks_that_differ_in_one_digit(dimensions: int) -> None:
    topology = make_topology("hypercube", 2**dimensions)
    for rank in range(2**dimensions):
        expected = {rank ^ (1 << digit): pytest.approx(1 / (1 + dimensions)) for digit in range(dimensions)}
        assert topology.in_weights(rank, 0) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 12])
def test_trees_are_those_of_the_textbook_and_pair_along_all_their_edges(size: int) -> None:
    expected = {
        "chain": nx.path_graph(size),
        "star": nx.star_graph(size - 1),
        "binary-tree": nx.full_rary_tree(2, size),
    }
    for name, tree in expected.items():
        topology = make_topology(name, size)
        assert nx.utils.graphs_equal(union_of(topology), tree)
        assert nx.utils.edges_equal(assert_bipartite_form(topology).edges, tree.edges)
        require_needs(topology, "tree")


def test_ring_complete_and_star_have_the_weights_of_the_textbook() -> None:
    assert make_topology("ring", 5).in_weights(0, 0) == pytest.approx({1: 1 / 3, 4: 1 / 3})
    assert make_topology("ring", 2).in_weights(0, 0) == {1: 0.5}
    np.testing.assert_allclose(make_topology("complete", 5).matrix(), 1 / 5)
    star = make_topology("star", 5).matrix()
    np.testing.assert_allclose(star[0], 1 / 5)
    np.testing.assert_allclose(star.diagonal()[1:], 4 / 5)


@pytest.mark.parametrize("size", [3, 6, 7, 12, 100])
def test_hypercube_of_another_size_is_an_error_with_the_nearest_sizes(size: int) -> None:
    below = 2 ** math.floor(math.log2(size))
    with pytest.raises(TopologyError, match=rf"power of two workers \({below} or {2 * below}\), not {size}"):
        make_topology("hypercube", size)


def test_hierarchical_without_hosts_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs to know the host of each rank"):
        make_topology("hierarchical", 4)


@given(named_arguments((*SYMMETRIC, "exponential", "one-peer-exponential")), st.floats(0, 0.99))
def test_laziness_mixes_in_the_identity(arguments: tuple[tuple[str, int], Mapping[str, Any]], laziness: float) -> None:
    (name, size), options = arguments
    eager = make_topology(name, size, **{**options, "laziness": 0.0})
    lazy = make_topology(name, size, **{**options, "laziness": laziness})
    for round_ in rounds_of(eager):
        expected = (1 - laziness) * eager.matrix(round_) + laziness * np.eye(size)
        np.testing.assert_allclose(lazy.matrix(round_), expected, atol=1e-12)
