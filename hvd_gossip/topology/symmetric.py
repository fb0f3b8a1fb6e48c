"""Symmetric mixing out of directed mixing, for algorithms whose edges must be able to drop out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.spectrum import TOLERANCE, Matrix, period_gap


class Symmetrized(Topology):
    """(W + W^T) / 2 of each round: symmetric, and doubly stochastic if W is. Every directed edge goes both ways.

    An absent worker's edges can be left out on both of their ends without moving the mean; edges that go one way cannot.
    """

    def __init__(self, directed: Topology) -> None:
        self._directed = directed
        self.name = f"{directed.name} (symmetrized)"
        self.size = directed.size
        self.period = directed.period

    def in_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        weights = {peer: weight / 2 for peer, weight in self._directed.in_weights(rank, round_).items()}
        for peer, weight in self._directed.out_weights(rank, round_).items():
            weights[peer] = weights.get(peer, 0.0) + weight / 2
        return weights

    def out_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self.in_weights(rank, round_)

    def pairs(self) -> tuple[Sequence[int], Mapping[int, Sequence[int]]]:
        return self._directed.pairs()

    def matrix(self, round_: int = 0) -> Matrix:
        directed = self._directed.matrix(round_)
        symmetric: Matrix = (directed + directed.T) / 2
        return symmetric

    def spectral_gap(self) -> float:
        return period_gap(self.matrix, self.period or 1)


def symmetrize(topology: Topology) -> Topology:
    """The topology itself if all its rounds are symmetric, else its `Symmetrized` form."""
    rounds = range(topology.period or 1)
    return topology if all(_is_symmetric(topology, round_) for round_ in rounds) else Symmetrized(topology)


def _is_symmetric(topology: Topology, round_: int) -> bool:
    for rank in range(topology.size):
        given, taken = topology.out_weights(rank, round_), topology.in_weights(rank, round_)
        if given.keys() != taken.keys() or any(abs(given[peer] - taken[peer]) > TOLERANCE for peer in given):
            return False
    return True
