"""The equations of algorithms for data that differ between workers, in plain NumPy."""

from __future__ import annotations

import numpy as np

from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.run import Run


def d2(run: Run) -> Vector:
    """x(k+1) = W [2 x(k) - x(k-1) + u(k) - u(k-1)], first x(1) = W [x(0) + u(0)]; Tang et al., ICML 2018, Algorithm 1."""
    W = run.topology.matrix()
    before, earlier = run.start, run.updates(run.start)
    x: Vector = W @ (before + earlier)
    for _ in range(run.steps - 1):
        u = run.updates(x)
        before, x, earlier = x, W @ (2 * x - before + u - earlier), u
    return x


def gradient_tracking(run: Run) -> Vector:
    """x(k+1) = W [x(k) + y(k)], y(k+1) = W y(k) + u(k+1) - u(k), y(0) = u(0); Pu and Nedic, Math. Programming 2021."""
    W = run.topology.matrix()
    x = run.start
    u = y = run.updates(x)
    for _ in range(run.steps):
        x = W @ (x + y)
        new = run.updates(x)
        y, u = W @ y + new - u, new
    return x


def qg_dsgdm(run: Run) -> Vector:
    """h = x + u + beta M, x' = W h, M' = beta M + (1 - beta) (x' - x); Lin et al., ICML 2021, Algorithm 1, M being -lr theirs."""
    beta, nesterov = run.settings.get("qg_momentum", 0.9), run.settings.get("qg_nesterov", False)
    x = run.start
    momentum = np.zeros_like(x)
    for step in range(run.steps):
        u = run.updates(x)
        m = beta * momentum + u
        after = run.exchange_after(step + 1) @ (x + (u + beta * m if nesterov else m))
        momentum = beta * momentum + (1 - beta) * (after - x)
        x = after
    return x
