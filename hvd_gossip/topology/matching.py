"""Rounds in which the workers meet in pairs: random matchings, and a rotation between even and odd ranks."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.bipartite import Pairs, parity_pairs
from hvd_gossip.topology.spectrum import Matrix, gap_of_rate, period_gap


class MatchingTopology(Topology):
    """Each round pairs the workers; partners average: W[i, j] = W[i, i] = 1/2, symmetric, less the laziness."""

    def __init__(self, name: str, size: int, period: int | None, laziness: float = 0.0) -> None:
        self.name = name
        self.size = size
        self.period = period
        self._laziness = laziness

    @abstractmethod
    def partner(self, rank: int, round_: int) -> int:
        """Whom `rank` meets in this round; itself when it idles."""

    def in_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        partner = self.partner(rank, round_)
        return {} if partner == rank else {partner: (1.0 - self._laziness) / 2}

    def out_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self.in_weights(rank, round_)

    def matrix(self, round_: int = 0) -> Matrix:
        weights = np.eye(self.size)
        for rank in range(self.size):
            for partner, weight in self.in_weights(rank, round_).items():
                weights[rank, rank] = 1.0 - weight
                weights[rank, partner] = weight
        return weights


class RandomMatchings(MatchingTopology):
    """A matching drawn uniformly each round from (seed, round): every rank draws the same one, without communication.

    With an odd number of workers one idles. A round's matching costs O(size) the first time and O(1) after.
    """

    def __init__(self, name: str, size: int, seed: int = 0, laziness: float = 0.0) -> None:
        super().__init__(name, size, None, laziness)
        self._seed = seed

    def partner(self, rank: int, round_: int) -> int:
        return _random_matching(self.size, self._seed, round_)[rank]

    def pairs(self) -> Pairs:
        """Every even rank with every odd one: the matchings draw from all pairs."""
        return parity_pairs(self.size, lambda rank: rank % 2, lambda rank: range(1 - rank % 2, self.size, 2))

    def spectral_gap(self) -> float:
        """1 - sqrt(lambda_2(E[W^T W])) in closed form.

        A rank meets each other one with probability p/(n - 1), p = 1 for even n and (n - 1)/n for odd n, so
        E[W] = (1 - n p / (2 (n - 1))) I + constant; W is a projection, hence W^T W = W, and mixed lazily
        E[W^T W] = (1 - l^2) E[W] + l^2 I.
        """
        if self.size == 1:
            return 1.0
        meets = 1.0 if self.size % 2 == 0 else (self.size - 1) / self.size
        second = 1.0 - self.size * meets / (2 * (self.size - 1))
        lazily = (1.0 - self._laziness**2) * second + self._laziness**2
        return gap_of_rate(math.sqrt(lazily))


# Shared by all topologies of a process: a simulation asks for one round's matching from a thousand ranks.
@lru_cache(maxsize=128)
def _random_matching(size: int, seed: int, round_: int) -> tuple[int, ...]:
    # Sorted raw words of a bit generator, not Generator.permutation: NumPy promises the former's stream for ever and
    # the latter's for one version, and ranks that disagreed about their partners would wait for each other.
    words = np.random.PCG64(np.random.SeedSequence((seed, round_))).random_raw(size)
    order = np.argsort(words, kind="stable")
    partners = np.arange(size)
    first, second = order[0 : size - 1 : 2], order[1::2]
    partners[first], partners[second] = second, first
    return tuple(int(partner) for partner in partners)


class BipartitePairs(MatchingTopology):
    """Perfect matchings between even and odd ranks, the sides turned against each other from round to round.

    With m = ceil(size / 2) ranks a side, a round joins the i-th even rank to the odd rank numbered (i + turn) mod m, the
    turns being 0, 1, -1, 3, -5, 11 ...: by 1 forwards, 2 back, 4 forwards and so on. A period of 1 + ceil(log2 m) rounds
    thus averages exactly when size is a power of two, as one-peer exponential rounds do, and no turn comes twice in it
    at any size (going one way only, some would). With an odd number of workers the even rank that meets the missing
    odd one idles.
    """

    def __init__(self, name: str, size: int, laziness: float = 0.0) -> None:
        self._side = (size + 1) // 2
        self._turns: list[int] = [(1 - (-2) ** k) // 3 for k in range(1 + (self._side - 1).bit_length())]
        super().__init__(name, size, len(self._turns), laziness)

    def partner(self, rank: int, round_: int) -> int:
        turn, place = self._turns[round_ % len(self._turns)], rank // 2
        if rank % 2:
            return 2 * ((place - turn) % self._side)
        odd = 2 * ((place + turn) % self._side) + 1
        return odd if odd < self.size else rank

    def pairs(self) -> Pairs:
        """Every even rank with the odd ranks that it meets in a period."""
        rounds = range(len(self._turns))
        return parity_pairs(
            self.size, lambda rank: rank % 2, lambda rank: {self.partner(rank, round_) for round_ in rounds}
        )

    def spectral_gap(self) -> float:
        """The contract's gap, from dense matrices: O(size^3)."""
        return period_gap(self.matrix, len(self._turns))
