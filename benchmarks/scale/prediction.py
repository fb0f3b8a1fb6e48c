"""Steps a second and bytes a step of an algorithm on a network, simulated without moving the model's megabytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.scale.ring import ring_bytes, ring_seconds
from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, Simulation, Still
from hvd_gossip.transport.simulated_links import Links

ELEMENTS, CHUNKS = 16, 2
"""float32 elements that stand for the model, and the chunks that they travel in: one a lane."""
PATIENCE = 1e9
"""Virtual seconds that a worker waits for another: a prediction never gives up."""
CLOSED_FORM = "allreduce"
STILL = 1e6
LOOKS = 16
"""How often to look during the compute of a step: a rate is as exact as that."""
LOOK_AGAIN = 0.02
"""How long after nothing was seen to look again, as a share of how long nothing was seen: the error of a rate."""


class Standstill(RuntimeError):
    """The workers wait for something that does not come."""


@dataclass(frozen=True)
class Prediction:
    """What a run would be like.

    Attributes:
        rate: steps a second, all workers together.
        step_seconds: of a worker, on average: workers over rate.
        bytes_a_step: that a worker sends.
        waited: share of the time in which a worker waited for others.
        steps: that were simulated, all workers together; 0 in closed form.
    """

    rate: float
    step_seconds: float
    bytes_a_step: float
    waited: float
    steps: int


@dataclass(frozen=True)
class Scenario:
    """What is the same for all algorithms of a comparison.

    Attributes:
        size: workers.
        nbytes: of the model.
        links: between the workers.
        compute: seconds of compute a step.
        chunks: pieces that the model travels in.
        departures: step after which a rank leaves.
        deaths: virtual time at which a rank dies, without a word to the others.
        seed: of all that is random.
    """

    size: int
    nbytes: float
    links: Links
    compute: ComputeModel
    chunks: int = CHUNKS
    departures: Mapping[int, int] = field(default_factory=dict)
    deaths: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0


def predict(algorithm: str, scenario: Scenario, steps: int, warm_up: int = 2, **options: Any) -> Prediction:
    """The prediction for an algorithm; allreduce in closed form, all others event by event.

    Args:
        steps: of each worker, on average, that are measured after `warm_up` others.
        options: of `hvd_gossip.simulate.Simulation`.
    """
    if algorithm == CLOSED_FORM:
        return _allreduce(scenario, steps)
    run = Run(algorithm, scenario, **options)
    run.until(warm_up)
    before = run.mark()
    run.until(warm_up + steps)
    return run.between(before, run.mark())


class Run:
    """A simulation that is stopped in the middle of its training: nobody has to depart.

    Args:
        elements: float32 that stand for the model.

    Attributes:
        simulation: what runs.
    """

    def __init__(self, algorithm: str, scenario: Scenario, elements: int = ELEMENTS, **options: Any) -> None:
        elements = max(elements, scenario.chunks)
        options.setdefault("settings", MixingSettings(seed=scenario.seed, wait_timeout=PATIENCE))
        self._scenario = scenario
        self.simulation = Simulation(
            algorithm,
            Still(np.zeros((scenario.size, elements), np.float32)),
            size=scenario.size,
            links=scenario.links,
            compute=scenario.compute,
            chunk_bytes=4 * math.ceil(elements / scenario.chunks),
            sample_every=0,
            seed=scenario.seed,
            payload_scale=scenario.nbytes / (4 * elements),
            **options,
        )
        for rank, at in scenario.deaths.items():
            self.simulation.world.kill(rank, at)
        for worker in self.simulation.workers:
            last = scenario.departures.get(worker.rank, math.inf)
            worker.endpoint.spawn(worker.train(last, math.inf), "training")

    def until(self, steps: float) -> None:
        """Goes on until the workers have taken so many steps on average.

        Raises:
            Standstill: nobody has stepped for `STILL` times the compute of a step.
        """
        world, mean = self.simulation.world, self._scenario.compute.mean
        taken, since = self._steps(), world.now
        while taken < steps * self._scenario.size:
            world.run(max_time=world.now + max(mean / LOOKS, LOOK_AGAIN * (world.now - since)))
            if (now_taken := self._steps()) > taken:
                taken, since = now_taken, world.now
            elif world.now - since > STILL * mean:
                raise Standstill(f"nobody has stepped since {since:g} s; it is {world.now:g} s")

    def _steps(self) -> int:
        return sum(worker.steps for worker in self.simulation.workers)

    def mark(self) -> tuple[float, int, float, float]:
        """Virtual seconds, steps, bytes sent and seconds waited so far, all workers together."""
        workers = self.simulation.workers
        return (
            self.simulation.world.now,
            self._steps(),
            sum(worker.endpoint.bytes_sent for worker in workers),
            sum(worker.waited for worker in workers),
        )

    def between(self, before: tuple[float, int, float, float], after: tuple[float, int, float, float]) -> Prediction:
        """What happened between two marks."""
        seconds, steps, sent, waited = (b - a for a, b in zip(before, after, strict=True))
        size = self._scenario.size
        return Prediction(steps / seconds, seconds * size / steps, sent / steps, waited / seconds / size, int(steps))


def _allreduce(scenario: Scenario, steps: int) -> Prediction:
    """Every step lasts as long as the slowest worker's compute and the ring after it: nothing is hidden behind backward."""
    times = [itertools.islice(scenario.compute.times(rank), steps) for rank in range(scenario.size)]
    drawn = np.array([list(one) for one in times])
    slowest = float(drawn.max(axis=0).mean())
    step = slowest + ring_seconds(scenario.size, scenario.nbytes, scenario.links)
    return Prediction(
        scenario.size / step,
        step,
        ring_bytes(scenario.size, scenario.nbytes),
        1.0 - float(drawn.mean()) / step,
        0,
    )


def algorithms() -> list[str]:
    """Every registered algorithm, the baseline first."""
    return [CLOSED_FORM, *sorted(name for name in ALGORITHMS if name != CLOSED_FORM)]
