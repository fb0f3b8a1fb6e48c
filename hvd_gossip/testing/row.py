"""One row of the list that drives every algorithm through the same tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hvd_gossip.algorithms.base import Algorithm
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.graphs import random_graph
from hvd_gossip.testing.run import Run


@dataclass(frozen=True)
class Row:
    """One algorithm under some settings.

    Attributes:
        algorithm: its registered name.
        settings: fields of MixingSettings.
        topologies: names to run it on, each for any number of workers.
        random_topology: (size, seed) -> what `make_topology` takes: a random graph that it can use.
        iterates: the paper's equations in plain NumPy of a `Run`, None for asynchronous algorithms.
        steps: in which it comes near the optimum of a small problem with alike workers at the learning rate 0.05.
        tolerance: how near to them it comes, absolutely.
        keeps_mass: whether the sum over all workers changes by the wrapped optimizers' updates alone.
        is_wrapped_alone: whether one worker does what the wrapped optimizer does, bit by bit; if not, what `iterates` says.
        heals: whether a worker whose parameters are not finite gets the mean of the others'.
        comes_to_consensus: whether without updates all workers end at the mean of where they began.
        variant: whether another row has this algorithm's usual settings; tests of many examples are then marked `slow`.
    """

    algorithm: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    topologies: tuple[str, ...] = ("auto", "ring", "complete")
    random_topology: Callable[[int, int], Any] = random_graph
    iterates: Callable[[Run], Vector] | None = None
    steps: int = 150
    tolerance: float = 1e-11
    keeps_mass: bool = True
    is_wrapped_alone: bool = True
    heals: bool = False
    comes_to_consensus: bool = True
    variant: bool = False

    @property
    def kind(self) -> type[Algorithm]:
        return find_algorithm(self.algorithm)

    @property
    def synchronous(self) -> bool:
        return self.kind.synchronous

    def heeds(self, setting: str) -> bool:
        """Whether the setting means something to it."""
        return setting in self.kind.heeds

    def __str__(self) -> str:
        return "-".join([self.algorithm, *(f"{name}={value}" for name, value in self.settings.items())])
