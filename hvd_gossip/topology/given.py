"""Topologies that the user gives: a networkx graph, a mixing matrix, or a list of matrices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import networkx as nx
import numpy as np

from hvd_gossip.errors import TopologyError
from hvd_gossip.topology.spectrum import Matrix
from hvd_gossip.topology.table import MixingRound, TableTopology
from hvd_gossip.topology.weights import own_shares, shares_of


def from_graph(
    graph: nx.Graph[Any], size: int, *, name: str = "graph", weights: str = "metropolis", laziness: float = 0.0
) -> TableTopology:
    """A static topology from a networkx Graph or DiGraph whose nodes are the ranks 0 .. size-1 (numbers or their text).

    An edge a -> b lets rank a give to rank b. Where all edges carry `weight`, these are the shares given along them,
    W[b, a], and a self-loop's is what the rank keeps (by default what is left of 1); where none does, `weights` says
    how they are chosen, and a directed graph takes push-sum's shares, 1 / (1 + out-degree).

    Raises:
        TopologyError: the nodes are not the ranks, there are parallel edges, only some edges are weighted, or a weight
            or their sum is out of range.
    """
    if graph.is_multigraph():
        raise TopologyError(
            f"topology {name!r} is a multigraph; parallel edges mean nothing here: use Graph or DiGraph"
        )
    ranked = _by_rank(graph, size, name)
    weighted = [edge for edge in ranked.edges if ranked.edges[edge].get("weight") is not None]
    if not weighted:
        ranked.remove_edges_from(list(nx.selfloop_edges(ranked)))
        return TableTopology(name, [MixingRound.of_shares(shares_of(ranked, weights))], laziness)
    if len(weighted) < ranked.number_of_edges():
        a, b = next(edge for edge in ranked.edges if edge not in set(weighted))
        raise TopologyError(
            f"topology {name!r}: edge {a} -> {b} has no weight but others have; give all edges one, or none"
        )
    return TableTopology(name, [MixingRound.of_shares(*own_shares(ranked, name))], laziness)


def _by_rank(graph: nx.Graph[Any], size: int, name: str) -> nx.Graph[int]:
    """A copy whose nodes are ints in ascending order."""
    if len(graph) != size:
        raise TopologyError(f"topology {name!r} is a graph of {len(graph)} nodes, but there are {size} workers")
    ranks = {node: _rank(node, size, name) for node in graph}
    if len(set(ranks.values())) < size:
        missing = min(set(range(size)) - set(ranks.values()))
        raise TopologyError(
            f"topology {name!r}: no node is rank {missing}; the nodes must be the ranks 0 to {size - 1}"
        )
    ranked = graph.__class__()
    ranked.add_nodes_from(range(size))
    ranked.add_edges_from((ranks[a], ranks[b], data) for a, b, data in graph.edges(data=True))
    return ranked


def _rank(node: Hashable, size: int, name: str) -> int:
    try:
        rank = int(node) if isinstance(node, str) else node.__index__()  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        rank = -1
    if not 0 <= rank < size:
        raise TopologyError(
            f"topology {name!r}: node {node!r} is not a rank; the nodes must be the ranks 0 to {size - 1}"
        )
    return int(rank)


def from_matrices(matrices: Any, size: int, *, name: str = "matrix", laziness: float = 0.0) -> TableTopology:
    """A topology from mixing matrices: one, or one a round of a period.

    Args:
        matrices: an array-like (size, size), W[i, j] being what rank i takes from rank j; or (rounds, size, size), or a
            sequence of (size, size) array-likes.

    Raises:
        TopologyError: a matrix is not square or not of the number of workers, or an entry is negative or not finite.
            What rows and columns must sum to depends on the algorithm: `require_needs` checks it.
    """
    period = [_checked(matrix, size, where) for where, matrix in _located(_numbers(matrices, name), name)]
    return TableTopology(name, [MixingRound.of_matrix(matrix) for matrix in period], laziness)


def _numbers(matrices: Any, name: str) -> Sequence[Matrix]:
    """One array a round."""
    try:
        if not isinstance(matrices, np.ndarray) and np.ndim(matrices[0]) == 2:
            return [_floats(matrix) for matrix in matrices]
        whole = _floats(matrices)
    except (TypeError, ValueError, LookupError) as error:
        raise TopologyError(f"topology {name!r} is not a matrix of numbers or a list of such: {error}") from error
    if whole.ndim == 3 and len(whole):
        return list(whole)
    return [whole]


def _floats(values: Any) -> Matrix:
    array = np.asarray(values)
    if np.iscomplexobj(array):
        raise TypeError("its entries are complex")
    return array.astype(np.float64)


def _located(matrices: Sequence[Matrix], name: str) -> list[tuple[str, Matrix]]:
    if len(matrices) == 1:
        return [(f"topology {name!r}: the mixing matrix", matrices[0])]
    return [(f"topology {name!r}: the mixing matrix of round {k}", matrix) for k, matrix in enumerate(matrices)]


def _checked(matrix: Matrix, size: int, where: str) -> Matrix:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise TopologyError(f"{where} has the shape {matrix.shape}; it must be square")
    if len(matrix) != size:
        raise TopologyError(f"{where} is {len(matrix)} x {len(matrix)}, but there are {size} workers")
    bad = np.argwhere(~np.isfinite(matrix) | (matrix < 0.0))
    if len(bad):
        row, column = bad[0].tolist()
        raise TopologyError(
            f"{where} has W[{row}, {column}] = {matrix[row, column]:.6g}; what rank {row} takes from rank {column} must be "
            "a finite number, 0 or more"
        )
    return matrix
