"""Mixing weights of a graph: what share of its parameters each rank gives to each neighbour.

All functions return one mapping a rank, {neighbour: share given to it}: the off-diagonal entries of W's columns. What is
not given away stays with the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import networkx as nx

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.topology.spectrum import TOLERANCE

Shares = Sequence[Mapping[int, float]]


def metropolis(graph: nx.Graph[int]) -> Shares:
    """Metropolis-Hastings weights of an undirected graph: W[i, j] = 1 / (1 + max(degree i, degree j)).

    Symmetric and doubly stochastic, with a positive diagonal.
    """
    degrees = [len(graph[rank]) for rank in range(len(graph))]
    return [{n: 1 / (1 + max(degrees[rank], degrees[n])) for n in graph[rank]} for rank in range(len(graph))]


def uniform(graph: nx.Graph[int]) -> Shares:
    """The same weight on every edge of an undirected graph: W[i, j] = 1 / (1 + largest degree). Doubly stochastic."""
    weight = 1 / (1 + max(len(graph[rank]) for rank in graph))
    return [dict.fromkeys(graph[rank], weight) for rank in range(len(graph))]


def push_sum_shares(graph: nx.Graph[int]) -> Shares:
    """Equal shares for every out-neighbour and oneself: W[j, i] = 1 / (1 + out-degree of i).

    Column-stochastic only: the values need push-sum's weights beside them to reach the mean.
    """
    return [dict.fromkeys(graph[rank], 1 / (1 + len(graph[rank]))) for rank in range(len(graph))]


WEIGHTS: Mapping[str, Callable[[nx.Graph[int]], Shares]] = {"metropolis": metropolis, "uniform": uniform}
"""What `--mixing-weights` chooses from, for undirected graphs without weights of their own."""


def shares_of(graph: nx.Graph[int], weights: str) -> Shares:
    """The shares of an unweighted graph over the ranks 0 .. n-1: the chosen weights, or push-sum's if it is directed.

    A directed graph whose every edge has its reverse counts as undirected.

    Raises:
        ConfigError: there are no weights of that name.
    """
    check_weights(weights)
    if not graph.is_directed():
        return WEIGHTS[weights](graph)
    if all(graph.has_edge(receiver, giver) for giver, receiver in graph.edges):
        return WEIGHTS[weights](graph.to_undirected())
    return push_sum_shares(graph)


def own_shares(graph: nx.Graph[int], name: str) -> tuple[Shares, list[float]]:
    """Shares and kept shares of a graph whose edges all carry `weight`, the share that goes along the edge.

    The weight of a self-loop is what the rank keeps; without one it keeps what its other shares leave of 1.

    Raises:
        TopologyError: a weight is not a number in [0, 1], or a rank gives away more than it has.
    """
    shares: list[dict[int, float]] = [{} for _ in range(len(graph))]
    kept: dict[int, float] = {}
    for giver, receiver, data in _both_ways(graph):
        share = _share(giver, receiver, data["weight"], name)
        if giver == receiver:
            kept[giver] = share
        elif share > 0:
            shares[giver][receiver] = share
    return shares, [kept.get(rank, _remainder(rank, given, name)) for rank, given in enumerate(shares)]


def _both_ways(graph: nx.Graph[int]) -> list[tuple[int, int, dict[str, Any]]]:
    edges = list(graph.edges(data=True))
    reverse = [] if graph.is_directed() else [(b, a, data) for a, b, data in edges if a != b]
    return edges + reverse


def _share(giver: int, receiver: int, weight: object, name: str) -> float:
    try:
        share = float(weight)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        share = float("nan")
    if not 0.0 <= share <= 1.0 + TOLERANCE:
        raise TopologyError(
            f"topology {name!r}: edge {giver} -> {receiver} has weight {weight!r}; a weight is the share of rank "
            f"{giver}'s parameters that rank {receiver} takes, a number from 0 to 1. Remove the weights from all edges "
            f"to have them chosen (mixing weights {' or '.join(WEIGHTS)})"
        )
    return share


def _remainder(rank: int, given: Mapping[int, float], name: str) -> float:
    total = sum(given.values())
    if total > 1.0 + TOLERANCE:
        raise TopologyError(
            f"topology {name!r}: the weights of rank {rank}'s edges sum to {total:.6g}; what a rank gives away cannot "
            "exceed 1. Edge weights are entries of the mixing matrix; remove them from all edges to have them chosen"
        )
    return max(1.0 - total, 0.0)


def check_weights(weights: str) -> None:
    """Raises ConfigError unless `weights` names mixing weights."""
    if weights not in WEIGHTS:
        raise ConfigError(f"mixing weights {weights!r} are unknown; valid: {', '.join(WEIGHTS)}")
