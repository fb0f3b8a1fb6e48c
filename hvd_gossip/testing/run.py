"""What a transcription of an algorithm's equations is given: all workers' parameters are the rows of one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvd_gossip.simulate import LeastSquares
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.topology.base import Topology


@dataclass(frozen=True)
class Run:
    """What is to be computed.

    Attributes:
        problem: exact gradients.
        topology: the mixing matrices W(0), W(1), ...
        steps: of every worker.
        rate: learning rate of the plain SGD that is wrapped.
        settings: fields of MixingSettings that are not at their defaults.
    """

    problem: LeastSquares
    topology: Topology
    steps: int
    rate: float
    settings: Mapping[str, Any]

    @property
    def start(self) -> Vector:
        """The parameters that the workers begin with, (size, dimension)."""
        return np.stack([self.problem.initial(rank) for rank in range(self.topology.size)])

    def updates(self, x: Vector) -> Vector:
        """u_i(x_i) = -rate g_i(x_i), (size, dimension)."""
        rng = np.random.default_rng(0)
        return np.stack([-self.rate * self.problem.gradient(rank, x[rank], rng) for rank in range(len(x))])

    def exchange_after(self, step: int) -> Vector:
        """The matrix of the exchange after the step-th step (from 1): I where none is due, 11^T/n where an exact average is."""
        if step and self.averages_after(step):
            return np.full((self.topology.size, self.topology.size), 1 / self.topology.size)
        if not self.exchanges_after(step):
            return np.eye(self.topology.size)
        return self.topology.matrix(step // self.settings.get("mixing_period", 1) - 1)

    def exchanges_after(self, step: int) -> bool:
        """Whether neighbours exchange after the step-th step (from 1)."""
        return step > 0 and step % self.settings.get("mixing_period", 1) == 0 and not self.averages_after(step)

    def averages_after(self, step: int) -> bool:
        """Whether all take the exact average after the step-th step (from 1)."""
        exact = self.settings.get("global_average_every", 0)
        return bool(exact > 0 and step % exact == 0)
