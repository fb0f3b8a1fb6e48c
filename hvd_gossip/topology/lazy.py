"""Mixing with a share of the identity added, for algorithms that need the eigenvalues of W away from -1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.spectrum import Matrix, period_gap


class Lazy(Topology):
    """(1 - l) W + l I of each round: every eigenvalue e of W becomes (1 - l) e + l.

    Args:
        topology: W; with a finite period.
        laziness: l, in [0, 1).
    """

    def __init__(self, topology: Topology, laziness: float) -> None:
        self._topology = topology
        self._laziness = laziness
        self.name = f"{topology.name} (laziness {laziness:g})"
        self.size = topology.size
        self.period = topology.period

    def in_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self._lessened(self._topology.in_weights(rank, round_))

    def out_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self._lessened(self._topology.out_weights(rank, round_))

    def pairs(self) -> tuple[Sequence[int], Mapping[int, Sequence[int]]]:
        return self._topology.pairs()

    def matrix(self, round_: int = 0) -> Matrix:
        matrix: Matrix = self._topology.matrix(round_) * (1.0 - self._laziness)
        matrix.flat[:: self.size + 1] += self._laziness
        return matrix

    def spectral_gap(self) -> float:
        return period_gap(self.matrix, self.period or 1)

    def _lessened(self, weights: Mapping[int, float]) -> dict[int, float]:
        return {peer: weight * (1.0 - self._laziness) for peer, weight in weights.items()}
