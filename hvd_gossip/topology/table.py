"""Topologies whose rounds are written out, entry by entry: stars, a user's graphs and matrices, hierarchies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import networkx as nx
import numpy as np

from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.bipartite import Pairs, graph_pairs
from hvd_gossip.topology.spectrum import Matrix, period_gap
from hvd_gossip.topology.weights import Shares


@dataclass(frozen=True)
class MixingRound:
    """One mixing matrix, sparse.

    Attributes:
        rows: W[i, j], j != i, for each i: what i takes.
        columns: W[j, i], j != i, for each i: what i gives.
        diagonal: W[i, i] for each i.
    """

    rows: Shares
    columns: Shares
    diagonal: Sequence[float]

    @classmethod
    def of_shares(cls, shares: Shares, kept: Sequence[float] | None = None) -> MixingRound:
        """From what each rank gives to others, and what it keeps (what is left of 1 unless said)."""
        rows: list[dict[int, float]] = [{} for _ in shares]
        for giver, given in enumerate(shares):
            for receiver, share in given.items():
                rows[receiver][giver] = share
        if kept is None:
            kept = [1.0 - sum(given.values()) for given in shares]
        return cls(_frozen(rows), _frozen(shares), tuple(kept))

    @classmethod
    def of_matrix(cls, matrix: Matrix) -> MixingRound:
        """From a dense (size, size) matrix; zeros are no edges."""
        shares: list[dict[int, float]] = [{} for _ in range(len(matrix))]
        for receiver, giver in np.argwhere(matrix != 0.0).tolist():
            if receiver != giver:
                shares[giver][receiver] = float(matrix[receiver, giver])
        return cls.of_shares(shares, matrix.diagonal().tolist())

    def lazy(self, laziness: float) -> MixingRound:
        """(1 - laziness) W + laziness I."""
        if laziness == 0.0:
            return self
        active = 1.0 - laziness
        shares = [{receiver: active * share for receiver, share in given.items()} for given in self.columns]
        return self.of_shares(shares, [active * kept + laziness for kept in self.diagonal])

    def matrix(self) -> Matrix:
        weights = np.diag(np.asarray(self.diagonal, dtype=np.float64))
        for receiver, taken in enumerate(self.rows):
            weights[receiver, list(taken)] = list(taken.values())
        return weights


def _frozen(shares: Shares) -> Shares:
    return tuple(MappingProxyType(dict(given)) for given in shares)


class TableTopology(Topology):
    """A period of written-out rounds."""

    def __init__(self, name: str, rounds: Sequence[MixingRound], laziness: float = 0.0) -> None:
        self.name = name
        self.size = len(rounds[0].diagonal)
        self.period = len(rounds)
        self._rounds = [round_.lazy(laziness) for round_ in rounds]

    def _at(self, round_: int) -> MixingRound:
        return self._rounds[round_ % len(self._rounds)]

    def in_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self._at(round_).rows[rank]

    def out_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self._at(round_).columns[rank]

    def matrix(self, round_: int = 0) -> Matrix:
        return self._at(round_).matrix()

    def pairs(self) -> Pairs:
        """The bipartite form of all edges of a period, their directions forgotten."""
        return graph_pairs(self.union(), self.name)

    def union(self) -> nx.Graph[int]:
        """The undirected graph of all edges of a period."""
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(self.size))
        for round_ in self._rounds:
            graph.add_edges_from((giver, receiver) for giver, to in enumerate(round_.columns) for receiver in to)
        return graph

    def spectral_gap(self) -> float:
        """The contract's gap, from dense matrices: O(size^3) a round."""
        return period_gap(self.matrix, len(self._rounds))
