"""Random worlds for properties: topologies, links, speeds, departures, and problems with known sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, Problem, Simulation, Still
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.row import Row
from hvd_gossip.transport.simulated_links import Links, exponential, lognormal, pareto

STRAGGLER = 1e4
SEEDS = st.integers(0, 2**20)
SIZES = st.one_of(*[st.integers(2, 9)] * 6, st.integers(10, 24), st.integers(25, 64))


class Drift(Still):
    """A gradient that does not depend on x: the sum of all parameters is known whatever the order of things."""

    def __init__(self, size: int, *, dimension: int = 5, dtype: Any = np.float64, seed: int = 0) -> None:
        rng = np.random.default_rng((seed, size))
        super().__init__(rng.standard_normal((size, dimension)).astype(dtype))
        self.slopes = rng.standard_normal((size, dimension)).astype(dtype)

    def gradient(self, rank: int, x: Vector, rng: np.random.Generator) -> Vector:
        slopes: Vector = self.slopes[rank]
        return slopes

    def sum_after(self, steps: Vector, rate: float) -> Vector:
        """The sum over the workers after so many steps of each."""
        start, slopes = self.values.astype(np.float64), self.slopes.astype(np.float64)
        total: Vector = (start - rate * steps[:, None] * slopes).sum(axis=0)
        return total


@dataclass(frozen=True)
class Scene:
    """Everything about a run but the algorithm."""

    size: int
    seed: int
    compute: ComputeModel
    links: Links
    options: dict[str, Any] = field(default_factory=dict)

    def simulation(self, algorithm: str | Row, problem: Problem, **settings: Any) -> Simulation:
        row = algorithm if isinstance(algorithm, Row) else Row(algorithm)
        settings = {**row.settings, **settings}
        options = {"chunk_bytes": 16, "seed": self.seed, "compute": self.compute, "links": self.links, **self.options}
        options.update({key: settings.pop(key) for key in ("topology", "consensus_every", "joins") if key in settings})
        mixing = MixingSettings(**{"seed": self.seed, "wait_timeout": math.inf, **settings})
        return Simulation(row.algorithm, problem, size=self.size, settings=mixing, **options)


@st.composite
def scenes(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES, slowest: float = STRAGGLER) -> Scene:
    """Delays from nothing to twenty steps, buffering from next to none to all, one rank up to `slowest` times slower."""
    size, seed = draw(sizes), draw(SEEDS)
    slow = {draw(st.integers(0, size - 1)): draw(st.sampled_from([1.0, min(3.0, slowest), slowest]))}
    jitter = draw(st.sampled_from([1.0, lognormal(1.0, 0.3), exponential(1.0), pareto(1.0, 1.5)]))
    delay = draw(st.sampled_from([0.0, exponential(1e-3), exponential(0.1), exponential(1.0), pareto(1e-2, 1.1)]))
    serialize = draw(st.booleans())
    links = Links(1e-4, draw(st.sampled_from([1e3, 1e9])), delay, serialize_send=serialize, serialize_receive=serialize)
    options = {
        "eager_limit": draw(st.sampled_from([32, 4096, math.inf])),
        "snapshot": draw(st.sampled_from(["latest", "random"])),
    }
    return Scene(size, seed, ComputeModel(0.05, jitter, slow, seed), links, options)


def departures(steps: int) -> st.SearchStrategy[dict[int, int]]:
    """Up to three ranks that leave at any moment (ranks are taken modulo the size)."""
    return st.dictionaries(st.integers(0, 63), st.integers(0, steps), max_size=3)


def within(ranks: dict[int, int], size: int) -> dict[int, int]:
    """The same, with ranks that exist."""
    return {rank % size: step for rank, step in ranks.items()}
