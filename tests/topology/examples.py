"""Topologies to try properties on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np
from hypothesis import strategies as st

from hvd_gossip.topology import TOPOLOGIES, Topology, make_topology

BASE = ("base-2", "base-3", "base-4", "base-5")
TREES = ("chain", "binary-tree", "star")
SYMMETRIC = ("ring", "complete", "torus", "hypercube", "random-matching", "bipartite", *BASE, *TREES)
"""Names whose every matrix is symmetric."""

ROUNDS = 12
"""Rounds of a random topology that a property looks at."""


@st.composite
def named_arguments(
    draw: st.DrawFn, names: tuple[str, ...] = tuple(TOPOLOGIES), largest: int = 64
) -> tuple[tuple[str, int], Mapping[str, Any]]:
    """((name, size), keyword arguments) for `make_topology`."""
    name = draw(st.sampled_from(names))
    size = draw(st.integers(1, largest))
    if name == "hypercube":
        size = 1 << (size.bit_length() - 1)
    options = {
        "seed": draw(st.integers(0, 2**63 - 1)),
        "weights": draw(st.sampled_from(["metropolis", "uniform"])),
        "laziness": draw(st.sampled_from([0.0, 0.25, 0.9])),
        "hosts": draw(st.lists(st.integers(0, 9), min_size=size, max_size=size)),
    }
    return (name, size), options


@st.composite
def named(draw: st.DrawFn, names: tuple[str, ...] = tuple(TOPOLOGIES), largest: int = 64) -> Topology:
    (name, size), options = draw(named_arguments(names, largest))
    return make_topology(name, size, **options)


@st.composite
def connected_graphs(draw: st.DrawFn, largest: int = 24) -> nx.Graph[int]:
    """A random tree with random further edges."""
    size = draw(st.integers(1, largest))
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(draw(st.permutations(range(size))))
    graph.add_edges_from((rank, draw(st.integers(0, rank - 1))) for rank in range(1, size))
    further = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=2 * size))
    graph.add_edges_from((a, b) for a, b in further if a != b)
    return graph


def rounds_of(topology: Topology) -> range:
    """A period and one round more, so that the first one's return is seen; some rounds of a random topology."""
    return range(ROUNDS if topology.period is None else topology.period + 1)


def assert_bipartite_form(topology: Topology) -> nx.Graph[int]:
    """Checks that `pairs()` is a connected bipartite form, and returns it as a graph."""
    initiators, neighbours = topology.pairs()
    initiating = set(initiators)
    assert list(neighbours) == list(range(topology.size))
    assert initiating <= set(neighbours)
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(neighbours)
    for rank, others in neighbours.items():
        assert list(others) == sorted(set(others))
        for other in others:
            assert (rank in initiating) != (other in initiating)
            assert rank in neighbours[other]
            graph.add_edge(rank, other)
    assert nx.is_connected(graph)
    return graph


def dense_gap(matrices: list[np.ndarray]) -> float:
    """The spectral gap by its definition."""
    product = np.linalg.multi_dot([*reversed(matrices), np.eye(len(matrices[0]))])
    second = float(np.linalg.svd(product - 1 / len(product), compute_uv=False)[0])
    rate: float = second ** (1 / len(matrices)) if second > 1e-13 else 0.0
    return 1.0 - rate
