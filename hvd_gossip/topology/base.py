"""What an algorithm asks of a topology.

Convention: W(k) is the mixing matrix of round k; row i says how worker i mixes: x_i <- sum_j W[i, j] x_j. A worker's
shares, what it gives away, are column i. "Doubly stochastic" means rows and columns sum to 1; push-sum needs only the columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np


class Topology(ABC):
    """A sequence of mixing matrices over `size` workers, the same on every rank without communication.

    Attributes:
        name: what `--topology` says.
        size: number of workers.
        period: after how many rounds the matrices repeat; None if they never do (random ones).
    """

    name: str
    size: int
    period: int | None

    @property
    def ranks(self) -> Sequence[int]:
        """The workers' ranks, ascending: all of 0 to size - 1, unless the topology is placed on some (`placed.Placed`)."""
        return range(self.size)

    @abstractmethod
    def in_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        """W[rank, j] for each in-neighbour j != rank of this round. O(degree), no n x n matrix is built."""

    @abstractmethod
    def out_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        """W[j, rank] for each out-neighbour j != rank of this round."""

    def neighbours(self, rank: int) -> set[int]:
        """Whoever the rank gives to or receives from in any round; with random rounds that may be anybody."""
        if self.period is None:
            return set(self.ranks) - {rank}
        weights = (self.in_weights, self.out_weights)
        return {peer for round_ in range(self.period) for of in weights for peer in of(rank, round_)}

    @abstractmethod
    def pairs(self) -> tuple[Sequence[int], Mapping[int, Sequence[int]]]:
        """The bipartite form for pairwise averaging: (initiators, neighbours of each rank across the two sides).

        Raises:
            TopologyError: no connected bipartite form exists (a single worker has the empty one).
        """

    @cached_property
    def pairing(self) -> tuple[frozenset[int], Mapping[int, Sequence[int]]]:
        """`pairs()`, worked out once: a simulation asks for it from each of a thousand ranks."""
        initiators, neighbours = self.pairs()
        return frozenset(initiators), neighbours

    @abstractmethod
    def matrix(self, round_: int = 0) -> np.ndarray:
        """W(round_) as a dense (size, size) float64 array."""

    @abstractmethod
    def spectral_gap(self) -> float:
        """1 minus the rate at which rounds bring the workers together, in [0, 1]; a single worker has 1.

        The rate is the second largest singular value of the product of one period's matrices, a round (geometric mean):
        the distance to consensus shrinks at least by it. For random topologies it is sqrt(lambda_2(E[W^T W])), the
        shrinking of the root mean square distance. For matrices that are only column-stochastic (push-sum) it is the
        product's second largest eigenvalue in modulus.
        """

    def largest_degree(self) -> int:
        """Most neighbours that any rank meets at once, over the rounds of a period (of 64, where it is longer or random)."""
        rounds = range(min(self.period or 64, 64))
        return max((len(self.in_weights(rank, round_)) for rank in self.ranks for round_ in rounds), default=0)
