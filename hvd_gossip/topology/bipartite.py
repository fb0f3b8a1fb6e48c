"""Bipartite forms: who may average with whom in pairs so that no cycle of waiting workers can arise (AD-PSGD).

Initiators only ask, responders only answer; an edge joins one of each. Every form here is connected, so that pairwise
averaging reaches consensus.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import networkx as nx

from hvd_gossip.errors import TopologyError

Pairs = tuple[Sequence[int], Mapping[int, Sequence[int]]]
"""(initiators, neighbours of each rank across the two sides), both ascending. One worker has ((), {0: ()})."""


class NeighboursAcross(Mapping[int, Sequence[int]]):
    """Neighbours of each rank, worked out when asked for: a rank needs its own only, whatever the size."""

    def __init__(self, size: int, neighbours: Callable[[int], Iterable[int]]) -> None:
        # Numbers that all answers share: a simulation asks for those of a thousand ranks.
        self._ranks = list(range(size))
        self._neighbours = neighbours

    def __getitem__(self, rank: int) -> Sequence[int]:
        if not 0 <= rank < len(self._ranks):
            raise KeyError(rank)
        return tuple(self._ranks[other] for other in sorted(self._neighbours(rank)))

    def __iter__(self) -> Iterator[int]:
        return iter(self._ranks)

    def __len__(self) -> int:
        return len(self._ranks)


def parity_pairs(size: int, parity: Callable[[int], int], neighbours: Callable[[int], Iterable[int]]) -> Pairs:
    """The bipartite form between ranks of parity 0 (initiators) and 1, keeping the edges that join the two.

    Args:
        parity: side of a rank, 0 or 1.
        neighbours: neighbours of a rank on either side, in a symmetric relation.
    """
    if size == 1:
        return (), {0: ()}

    def across(rank: int) -> set[int]:
        return {other for other in neighbours(rank) if parity(other) != parity(rank)}

    return tuple(rank for rank in range(size) if parity(rank) == 0), NeighboursAcross(size, across)


def exponential_pairs(size: int) -> Pairs:
    """Even ranks with odd ranks at the distances +-1, +-3, +-5, +-9, +-17 ... +-(2^k + 1).

    The odd counterparts of the exponential graph's distances, so that mixing stays as fast. An odd number of ranks lies
    on a circle with one place more, left empty: going round it would otherwise end on one's own side.
    """
    circle = size + size % 2
    distances = [1, *(2**k + 1 for k in range(1, circle.bit_length()) if 2**k + 1 < circle)]

    def neighbours(rank: int) -> set[int]:
        return {(rank + step) % circle for distance in distances for step in (distance, -distance)} - {size}

    return parity_pairs(size, lambda rank: rank % 2, neighbours)


def graph_pairs(graph: nx.Graph[int], name: str) -> Pairs:
    """The bipartite form of a graph over the ranks 0 .. n-1.

    A bipartite graph keeps its own two sides. Of any other, the edges inside one side of a large cut are dropped: a
    local search from even against odd ranks, after which no rank has more edges on its own side than across and what
    is left is connected. The larger side initiates.

    Raises:
        TopologyError: the graph is not connected.
    """
    if len(graph) == 1:
        return (), {0: ()}
    _require_connected(graph, name)
    side = dict(nx.bipartite.color(graph)) if nx.is_bipartite(graph) else connected_cut(graph)
    sides = [[rank for rank in sorted(graph) if side[rank] == which] for which in (side[0], 1 - side[0])]
    neighbours = {rank: tuple(sorted(n for n in graph[rank] if side[n] != side[rank])) for rank in sorted(graph)}
    initiators = max(sides, key=len)
    return tuple(initiators), neighbours


def connected_cut(graph: nx.Graph[int]) -> dict[int, int]:
    """Side, 0 or 1, of each rank of a connected graph such that the edges across the two sides connect it."""
    side = {rank: rank % 2 for rank in graph}
    while True:
        _improve_cut(graph, side)
        apart = _piece_apart(graph, side)
        if apart is None:
            return side
        # No edge across leaves this piece, so that changing its side makes edges of all that lead out of it and loses
        # none: the cut grows each time, and the loop ends.
        for rank in apart:
            side[rank] = 1 - side[rank]


def _improve_cut(graph: nx.Graph[int], side: dict[int, int]) -> None:
    pending = deque(sorted(graph))
    while pending:
        rank = pending.popleft()
        own_side = sum(side[neighbour] == side[rank] for neighbour in graph[rank])
        if 2 * own_side > len(graph[rank]):
            side[rank] = 1 - side[rank]
            pending.extend(graph[rank])


def _piece_apart(graph: nx.Graph[int], side: dict[int, int]) -> set[int] | None:
    """Ranks that no path of edges across the sides joins to rank 0; one such piece, or None."""
    across: nx.Graph[int] = nx.Graph()
    across.add_nodes_from(graph)
    across.add_edges_from((a, b) for a, b in graph.edges if side[a] != side[b])
    return next((piece for piece in nx.connected_components(across) if 0 not in piece), None)


def _require_connected(graph: nx.Graph[int], name: str) -> None:
    reached = nx.node_connected_component(graph, 0)
    if len(reached) < len(graph):
        cut_off = sorted(set(graph) - reached)
        raise TopologyError(
            f"topology {name!r} has no connected bipartite form: no path joins rank 0 and rank {cut_off[0]} "
            f"({len(cut_off)} of {len(graph)} ranks are cut off from rank 0); add an edge between them"
        )
