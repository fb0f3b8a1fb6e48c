"""A topology of a few workers, placed on the ranks of a process set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hvd_gossip.errors import ConfigError
from hvd_gossip.topology.base import Topology


class Placed(Topology):
    """Worker i of `topology` is rank `ranks[i]`: the methods take and give ranks. Matrices keep the order of the workers.

    Args:
        topology: of as many workers as there are ranks.
        ranks: ascending, each once.

    Raises:
        ConfigError: the ranks are not that.
    """

    def __init__(self, topology: Topology, ranks: Sequence[int]) -> None:
        if list(ranks) != sorted(set(ranks)) or len(ranks) != topology.size:
            raise ConfigError(f"a topology of {topology.size} workers cannot be placed on ranks {list(ranks)}")
        self._topology = topology
        self._ranks = tuple(ranks)
        self._places = {rank: place for place, rank in enumerate(ranks)}
        self.name = topology.name
        self.size = topology.size
        self.period = topology.period

    @property
    def ranks(self) -> Sequence[int]:
        return self._ranks

    def in_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self._moved(self._topology.in_weights(self._places[rank], round_))

    def out_weights(self, rank: int, round_: int) -> Mapping[int, float]:
        return self._moved(self._topology.out_weights(self._places[rank], round_))

    def pairs(self) -> tuple[Sequence[int], Mapping[int, Sequence[int]]]:
        initiators, neighbours = self._topology.pairs()
        ranks = self._ranks
        return [ranks[i] for i in initiators], {ranks[i]: [ranks[j] for j in near] for i, near in neighbours.items()}

    def matrix(self, round_: int = 0) -> np.ndarray:
        return self._topology.matrix(round_)

    def spectral_gap(self) -> float:
        return self._topology.spectral_gap()

    def _moved(self, weights: Mapping[int, float]) -> Mapping[int, float]:
        return {self._ranks[place]: weight for place, weight in weights.items()}
