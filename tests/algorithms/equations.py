"""The equations of the algorithms' papers, in plain NumPy: all workers' parameters as the rows of one matrix.

An exchange "overlap" of x(k) begins after the k-th update, so the first update mixes nothing (W(-1) = I) and the last exchange
is folded in when the workers depart.
"""

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
        size, period = self.topology.size, self.settings.get("mixing_period", 1)
        exact = self.settings.get("global_average_every", 0)
        if step and exact and step % exact == 0:
            return np.full((size, size), 1 / size)
        if step == 0 or step % period:
            return np.eye(size)
        return self.topology.matrix(step // period - 1)


def allreduce(run: Run) -> Vector:
    """x(k+1) = x(k) + mean_j u_j(x(k)), from where all workers begin; Patarasuk and Yuan, JPDC 2009."""
    x = run.start
    for _ in range(run.steps):
        x = x + run.updates(x).mean(axis=0)
    return x


def dpsgd_overlap(run: Run) -> Vector:
    """x(k+1) = W x(k) + u(x(k)); Lian et al., NeurIPS 2017, Algorithm 1."""
    x = run.start
    for step in range(run.steps):
        x = run.exchange_after(step) @ x + run.updates(x)
    return run.exchange_after(run.steps) @ x


def dpsgd_sequential(run: Run) -> Vector:
    """x(k+1) = W (x(k) + u(x(k)))."""
    x = run.start
    for step in range(run.steps):
        x = run.exchange_after(step + 1) @ (x + run.updates(x))
    return x


def sgp_overlap(run: Run) -> Vector:
    """x(k+1) = P x(k) + u(z(k)), w(k+1) = P w(k), z = x / w; Nedic and Olshevsky, IEEE TAC 2015."""
    x, w = run.start, np.ones((run.topology.size, 1))
    for step in range(run.steps):
        P = run.exchange_after(step)
        x, w = P @ x + run.updates(x / w), P @ w
    P = run.exchange_after(run.steps)
    return P @ x / (P @ w)


def sgp_sequential(run: Run) -> Vector:
    """x(k+1) = P (x(k) + u(z(k))), w(k+1) = P w(k), z = x / w; Assran et al., ICML 2019, Algorithm 1."""
    x, w = run.start, np.ones((run.topology.size, 1))
    for step in range(run.steps):
        P = run.exchange_after(step + 1)
        x, w = P @ (x + run.updates(x / w)), P @ w
    return x / w
