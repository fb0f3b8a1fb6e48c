"""The equations of local SGD and of outer steps, in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.run import Run


def local(run: Run) -> Vector:
    """x' = x + u, and every H steps the mean of all; Stich, ICLR 2019."""
    every = run.settings.get("mixing_period", 1)
    x = run.start
    for step in range(1, run.steps + 1):
        x = x + run.updates(x)
        if step % every == 0:
            x = np.tile(x.mean(axis=0), (len(x), 1))
    return x


@dataclass
class OuterStep:
    """A and U of SlowMo (Wang et al., ICLR 2020) and DiLoCo (Douillard et al., 2023)."""

    settings: Mapping[str, Any]
    anchor: Vector
    velocity: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.velocity = np.zeros_like(self.anchor)

    def __call__(self, mean: Vector) -> Vector:
        rate, beta = self.settings.get("outer_lr", 1.0), self.settings.get("outer_momentum", 0.7)
        gone = self.anchor - mean
        self.velocity = beta * self.velocity + gone
        slowmo = self.settings["outer"] == "slowmo"
        self.anchor = self.anchor - rate * (self.velocity if slowmo else gone + beta * self.velocity)
        return self.anchor


def _periods(run: Run, advance: Callable[[Vector, int], Vector]) -> Vector:
    """`advance(x, n)` makes n steps; after every whole period there is an outer step."""
    x, every = run.start, run.settings["outer_every"]
    outer = OuterStep(run.settings, x.mean(axis=0))
    for _ in range(run.steps // every):
        x = np.tile(outer(advance(x, every).mean(axis=0)), (len(x), 1))
    return advance(x, run.steps % every)


def over_local(run: Run) -> Vector:
    """Nothing but the workers' own steps between two outer steps."""

    def advance(x: Vector, steps: int) -> Vector:
        for _ in range(steps):
            x = x + run.updates(x)
        return x

    return _periods(run, advance)


def over_dpsgd(run: Run) -> Vector:
    """D-PSGD in the order "overlap": the exchange after a period's last step is complete before the outer step."""
    W = run.topology.matrix()

    def advance(x: Vector, steps: int) -> Vector:
        for step in range(steps):
            x = (W @ x if step else x) + run.updates(x)
        return W @ x if steps else x

    return _periods(run, advance)
