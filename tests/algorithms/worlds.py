"""Random worlds for properties: topologies, links, speeds, departures, and problems with known sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
from hypothesis import strategies as st

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, Problem, Simulation, Still
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.transport.simulated_links import Links, exponential, lognormal, pareto

VARIANTS = [
    ("dpsgd", "overlap"),
    ("dpsgd", "sequential"),
    ("adpsgd", "overlap"),
    ("sgp", "overlap"),
    ("sgp", "sequential"),
]
STRAGGLER = 1e4
SEEDS = st.integers(0, 2**20)
SIZES = st.one_of(st.integers(2, 9), st.integers(2, 9), st.integers(10, 24), st.integers(25, 64))


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

    def simulation(self, algorithm: str, problem: Problem, **settings: Any) -> Simulation:
        options = {"chunk_bytes": 16, "seed": self.seed, "compute": self.compute, "links": self.links, **self.options}
        options.update({key: settings.pop(key) for key in ("topology", "consensus_every", "joins") if key in settings})
        mixing = MixingSettings(**{"seed": self.seed, "wait_timeout": math.inf, **settings})
        return Simulation(algorithm, problem, size=self.size, settings=mixing, **options)


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


def random_graph(size: int, seed: int) -> nx.Graph:
    """Connected: a random tree and some more edges."""
    rng = np.random.default_rng(seed)
    graph = nx.Graph()
    graph.add_nodes_from(range(size))
    graph.add_edges_from((rank, int(rng.integers(rank))) for rank in range(1, size))
    for _ in range(int(rng.integers(2 * size))):
        a, b = rng.integers(size, size=2).tolist()
        if a != b:
            graph.add_edge(a, b)
    return graph


def random_directed_rounds(size: int, seed: int) -> list[Vector]:
    """Column-stochastic matrices of one to three rounds; only all together do they join every rank."""
    rng = np.random.default_rng(seed)
    order, count = rng.permutation(size), int(rng.integers(1, 4))
    rounds = [np.diag(rng.uniform(0.2, 1.0, size)) for _ in range(count)]
    for position, giver in enumerate(order):
        rounds[rng.integers(count)][order[(position + 1) % size], giver] += rng.uniform(0.2, 1.0)
    for matrix in rounds:
        for _ in range(int(rng.integers(size))):
            receiver, giver = rng.integers(size, size=2)
            matrix[receiver, giver] += rng.uniform(0.1, 1.0)
    return [matrix / matrix.sum(axis=0) for matrix in rounds]


def topology_for(algorithm: str, size: int, seed: int) -> Any:
    """A random topology that the algorithm can use."""
    return random_directed_rounds(size, seed) if algorithm == "sgp" else random_graph(size, seed)
