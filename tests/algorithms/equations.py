"""The equations of the algorithms' papers, in plain NumPy: all workers' parameters as the rows of one matrix.

An exchange "overlap" of x(k) begins after the k-th update, so the first update mixes nothing (W(-1) = I) and the last exchange
is folded in when the workers depart.
"""

from __future__ import annotations

import numpy as np

from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing import Run


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
