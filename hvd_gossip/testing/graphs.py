"""Random graphs that algorithms can mix on."""

from __future__ import annotations

import networkx as nx
import numpy as np

from hvd_gossip.simulate_problems import Vector


def random_tree(size: int, seed: int) -> nx.Graph[int]:
    """Each rank joined to one of the ranks before it."""
    rng = np.random.default_rng(seed)
    tree: nx.Graph[int] = nx.Graph()
    tree.add_nodes_from(range(size))
    tree.add_edges_from((rank, int(rng.integers(rank))) for rank in range(1, size))
    return tree


def random_graph(size: int, seed: int) -> nx.Graph[int]:
    """Connected: a random tree and some more edges."""
    rng = np.random.default_rng(seed)
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from((rank, int(rng.integers(rank))) for rank in range(1, size))
    for _ in range(int(rng.integers(2 * size))):
        a, b = rng.integers(size, size=2).tolist()
        if a != b:
            graph.add_edge(a, b)
    return graph


def random_directed_rounds(size: int, seed: int) -> list[Vector]:
    """Column-stochastic matrices of one to three rounds; only all together do they join every rank."""
    rng = np.random.default_rng(seed)
    order, count = rng.permutation(size), int(rng.integers(1, 4))
    rounds = [np.diag(rng.uniform(0.2, 1.0, size)) for _ in range(count)]
    for position, giver in enumerate(order):
        rounds[rng.integers(count)][order[(position + 1) % size], giver] += rng.uniform(0.2, 1.0)
    for matrix in rounds:
        for _ in range(int(rng.integers(size))):
            receiver, giver = rng.integers(size, size=2)
            matrix[receiver, giver] += rng.uniform(0.1, 1.0)
    return [matrix / matrix.sum(axis=0) for matrix in rounds]
