"""Graphs that look the same from every rank: rings, tori, hypercubes, complete and exponential graphs.

The ranks are the points of a grid of some shape, in row-major order, whose every direction wraps around (formally the
group Z_a x Z_b x ...); a round lets each rank x send to x + o for each offset o of the round. All weights of a round
are equal, so each matrix is doubly stochastic whether or not it is symmetric, Metropolis-Hastings and uniform weights
are the same thing, and the discrete Fourier transform of one column is the whole spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.bipartite import Pairs, exponential_pairs, parity_pairs
from hvd_gossip.topology.spectrum import Matrix, gap_of_rate

Offset = tuple[int, ...]

_ZERO = 1e-12
KEPT_NEIGHBOURS = 8
"""Weights of a rank and round with at most so many neighbours are worked out once."""


class CayleyTopology(Topology):
    """Ranks on a wrapping grid, each sending to the same offsets with equal weights.

    W[x + o, x] = (1 - laziness) / (1 + number of offsets) for each offset o of the round; the rest stays with x.
    """

    def __init__(
        self, name: str, shape: Sequence[int], rounds: Sequence[Sequence[Offset]], laziness: float = 0.0
    ) -> None:
        """Builds the topology.

        Args:
            shape: sides of the grid; their product is the number of workers.
            rounds: the offsets of each round of a period, one number a side of the grid. Offsets that wrap around to
                the same place count once, and those that lead nowhere not at all.
            laziness: share of the identity, in [0, 1).
        """
        self.name = name
        self.size = math.prod(shape)
        self.period = len(rounds)
        self._shape = tuple(shape)
        self._laziness = laziness
        self._offsets = [self._distinct(offsets) for offsets in rounds]
        self._strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        self._moves = [[self._move_of(offset) for offset in offsets] for offsets in self._offsets]
        self._known: dict[int, Mapping[int, float]] = {}

    def _distinct(self, offsets: Sequence[Offset]) -> list[Offset]:
        wrapped = {tuple(step % side for step, side in zip(o, self._shape, strict=True)) for o in offsets}
        return sorted(offset for offset in wrapped if any(offset))

    def _move_of(self, offset: Offset) -> list[tuple[int, int, int]]:
        """The (stride, side, step) of each direction in which the offset moves."""
        moves = zip(self._strides, self._shape, offset, strict=True)
        return [(stride, side, step) for stride, side, step in moves if step]

    def _weight(self, round_: int) -> float:
        return (1.0 - self._laziness) / (1 + len(self._moves[round_ % len(self._moves)]))

    def _reached(self, rank: int, round_: int, sign: int) -> list[int]:
        return [_moved(rank, move, sign) for move in self._moves[round_ % len(self._moves)]]

    def in_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self._weights(rank, round_, -1)

    def out_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self._weights(rank, round_, 1)

    def _weights(self, rank: int, round_: int, sign: int) -> Mapping[int, float]:
        """Kept for rounds of few neighbours: a simulation asks for those of a thousand ranks again and again."""
        place = round_ % len(self._moves)
        key = ((2 * place + (sign > 0)) * self.size) + rank
        weights = self._known.get(key)
        if weights is None:
            weights = dict.fromkeys(self._reached(rank, place, sign), self._weight(place))
            if len(weights) <= KEPT_NEIGHBOURS:
                self._known[key] = weights
        return weights

    def pairs(self) -> Pairs:
        """Ranks of even against ranks of odd coordinate sum, joined as in any round of the period.

        A ring of odd length loses one edge; a torus with an odd side loses the edges that close that side.
        """
        parity = [self._parity(rank) for rank in range(self.size)]
        return parity_pairs(self.size, parity.__getitem__, self.neighbours)

    def _parity(self, rank: int) -> int:
        return sum(rank // stride % side for stride, side in zip(self._strides, self._shape, strict=True)) % 2

    def matrix(self, round_: int = 0) -> Matrix:
        ranks = np.arange(self.size).reshape(self._shape)
        weights = np.zeros((self.size, self.size))
        for offset in self._offsets[round_ % len(self._offsets)]:
            receivers = np.roll(ranks, [-step for step in offset], axis=tuple(range(len(offset))))
            weights[receivers.ravel(), ranks.ravel()] = self._weight(round_)
        np.fill_diagonal(weights, self._kept(round_))
        return weights

    def _kept(self, round_: int) -> float:
        return 1.0 - self._weight(round_) * len(self._moves[round_ % len(self._moves)])

    def eigenvalues(self, round_: int = 0) -> npt.NDArray[np.complex128]:
        """All eigenvalues of W(round_), (size,) complex128; the first is the 1 of consensus. O(size log size)."""
        column = np.zeros(self._shape)
        for offset in self._offsets[round_ % len(self._offsets)]:
            column[offset] = self._weight(round_)
        column.flat[0] = self._kept(round_)
        return np.fft.fftn(column).ravel()

    def spectral_gap(self) -> float:
        """The contract's gap, exact, in O(size log size): the matrices commute and are normal."""
        if self.size == 1:
            return 1.0
        # A factor that should be 0 comes out as 1e-17, whose root over a long period would look like a rate.
        moduli = [np.abs(self.eigenvalues(round_)) for round_ in range(len(self._moves))]
        rates = np.prod([np.where(modulus < _ZERO, 0.0, modulus) for modulus in moduli], axis=0)
        return gap_of_rate(float(rates[1:].max()) ** (1 / len(self._moves)))


def _moved(rank: int, move: list[tuple[int, int, int]], sign: int) -> int:
    for stride, side, step in move:
        coordinate = rank // stride % side
        rank += ((coordinate + sign * step) % side - coordinate) * stride
    return rank


class ExponentialTopology(CayleyTopology):
    """A directed exponential graph; pairwise averaging uses the odd distances next to its own."""

    def pairs(self) -> Pairs:
        return exponential_pairs(self.size)
