"""Training in a simulated world: the very algorithms of real training, thousands of workers, virtual seconds.

    report = simulate("adpsgd", LeastSquares(64), size=64, steps=100, compute=ComputeModel(0.05, slow={3: 10.0}))
    report.time, report.consensus_distance, report.waited.mean()

predicts how an algorithm behaves on a network and with stragglers that are described, not owned.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvd_gossip import joining
from hvd_gossip.algorithms.allreduce import AllReduce
from hvd_gossip.algorithms.base import Algorithm, Context
from hvd_gossip.algorithms.limit import Limit
from hvd_gossip.algorithms.registry import find_algorithm, make_algorithm
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.buffers.replica import CHUNK_BYTES, Replica
from hvd_gossip.collectives import Collectives
from hvd_gossip.errors import ConfigError
from hvd_gossip.observe.counters import Counters
from hvd_gossip.simulate_compute import ComputeModel, Cores
from hvd_gossip.simulate_problems import LeastSquares, Problem, Still, Vector
from hvd_gossip.topology import Topology, fit_topology, make_topology
from hvd_gossip.transport.endpoint import ALGORITHM_BASE
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links

__all__ = ["ComputeModel", "LeastSquares", "Problem", "Report", "Simulation", "Still", "simulate"]

Schedule = float | Callable[[int], float]
"""A learning rate, or a function of the worker's own step count."""


@dataclass(frozen=True)
class Report:
    """What a simulation did. Arrays have one entry, or row, a rank unless said.

    Attributes:
        algorithm, topology: their names.
        time: virtual seconds until everybody was done.
        steps: steps taken.
        finished_at: virtual time of the last step's end.
        departed_at: virtual time from which nobody needed the rank any more.
        waited: seconds spent in steps, waiting for others (the rest is compute).
        parameters: what each rank ended with, (size, dimension).
        alive: whether the rank lived to the end.
        times, means, distances: the trajectory; one entry, or row, a sample: virtual time, mean of the live ranks'
            parameters in float64, consensus distance.
        consensus: the exact means of `consensus_every` that the rank took part in, a list.
        last_joined: what each of the rank's joins returned, a list.
        bytes_sent: payload bytes that left the rank, control messages included.
        counters: what the algorithm counted.
        events: events of the virtual clock.
    """

    algorithm: str
    topology: str
    time: float
    steps: Vector
    finished_at: Vector
    departed_at: Vector
    waited: Vector
    parameters: Vector
    alive: Vector
    times: Vector
    means: Vector
    distances: Vector
    consensus: list[list[Vector]]
    last_joined: list[list[int]]
    bytes_sent: Vector
    counters: list[Counters]
    events: int

    @property
    def mean(self) -> Vector:
        """Mean of the live ranks' parameters, float64."""
        return _mean(self.parameters[self.alive])

    @property
    def consensus_distance(self) -> float:
        """Root mean square, over the live ranks, of the L2 distance to their mean."""
        return _distance(self.parameters[self.alive])


def _mean(parameters: Vector) -> Vector:
    mean: Vector = parameters.astype(np.float64).mean(axis=0)
    return mean


def _distance(parameters: Vector) -> float:
    return math.sqrt(np.square(parameters.astype(np.float64) - _mean(parameters)).sum(axis=1).mean())


async def _run(awaitable: Awaitable[Any]) -> None:
    await awaitable


class Worker:
    """One rank: computes, steps, departs.

    Attributes:
        consensus: the exact means that it took part in.
        last_joined: what its joins returned.
    """

    def __init__(self, simulation: Simulation, rank: int, cls: type[Algorithm], topology: Topology) -> None:
        self.rank = rank
        self.endpoint = simulation.world.endpoints[rank]
        self.x = simulation.parameters[rank]
        self.replica = Replica([self.x], simulation.chunk_bytes)
        self.counters = Counters()
        self.collectives = Collectives(
            self.endpoint, stall_check_disable=True, wait_timeout=simulation.settings.wait_timeout
        )
        self.rng = np.random.default_rng((simulation.seed, rank, 1))
        self.consensus: list[Vector] = []
        self.last_joined: list[int] = []
        self.steps = 0
        self._limit = Limit(self.endpoint, simulation.settings.wait_timeout)
        self._epoch_began = 0
        self.waited = 0.0
        self.finished_at = self.departed_at = 0.0
        self._simulation = simulation
        self.algorithm = make_algorithm(
            cls,
            Context(
                endpoint=self.endpoint,
                replica=self.replica,
                topology=topology,
                settings=simulation.settings,
                channel=ALGORITHM_BASE,
                post=lambda function: function(),
                exact_average=self.collectives.exact_average,
                counters=self.counters,
            ),
        )
        self._averager = self.algorithm if isinstance(self.algorithm, AllReduce) else None

    async def train(self, steps: float, until: float) -> None:
        """Takes so many steps, or those that begin before a time, and departs."""
        simulation = self._simulation
        self.algorithm.start()
        if simulation.averages_exactly:
            self.collectives.start()
        seconds, compute = simulation.compute.times(self.rank), simulation.compute
        joins = deque(simulation.joins.get(self.rank, ()))
        await self._join(joins)
        while self.steps < steps and self.endpoint.now() < until:
            gradient = simulation.problem.gradient(self.rank, self.x, self.rng)
            await self.endpoint.sleep(next(seconds))
            if compute.cpu:
                await self.endpoint.sleep(simulation.cores.occupy(self.endpoint.now(), compute.cpu))
            await self._step(gradient)
            if compute.background:
                simulation.cores.occupy(self.endpoint.now(), compute.background)
            simulation.stepped()
            if simulation.consensus_every and (self.steps - self._epoch_began) % simulation.consensus_every == 0:
                await self._meet()
            await self._join(joins)
        self.finished_at = self.endpoint.now()
        self._limit.close()
        await self.algorithm.depart()
        self.algorithm.settle()
        if simulation.averages_exactly:
            await self.collectives.depart(simulation.settings.wait_timeout)
        await self.algorithm.linger()
        self.departed_at = self.endpoint.now()

    async def _step(self, gradient: Vector) -> None:
        began = self.endpoint.now()
        if self._averager is not None:
            await self._wait(self._averager.average_gradients([gradient]))
        step = self.algorithm.step(lambda: self._update(gradient))
        try:
            while True:
                await self._wait(next(step)())
        except StopIteration:
            self.steps += 1
        self.waited += self.endpoint.now() - began

    async def _wait(self, awaitable: Awaitable[Any]) -> None:
        """Bounds a wait as the engine bounds the training thread's."""
        waiting = self.endpoint.spawn(awaitable if inspect.iscoroutine(awaitable) else _run(awaitable), "waiting")
        await self._limit.watch(waiting)

    async def _join(self, joins: deque[int]) -> None:
        """What `hvd.join()` does, once for each epoch that ends after the steps taken so far."""
        while joins and joins[0] <= self.steps:
            self._epoch_began = joins.popleft()
            result = await joining.join(self.endpoint, self.collectives, [self.algorithm])
            self.last_joined.append(result.last_joined)
            self.algorithm.settle()

    async def _meet(self) -> None:
        """What `hvd.consensus(model)` does around an evaluation."""
        await self.algorithm.pause()
        self.replica.hold()
        self.algorithm.preview()
        await self.algorithm.average(f"consensus.{self.algorithm.phase}")
        self.consensus.append(self.x.copy())
        self.replica.release()
        await self.algorithm.resume()

    def _update(self, gradient: Vector) -> None:
        rate = self._simulation.learning_rate
        self.x -= (rate(self.steps) if callable(rate) else rate) * gradient

    def mass(self) -> tuple[Vector, Vector]:
        """(weight * x + correction, weight) of each element, float64, (dimension,) both. Exact while nothing travels."""
        weights = self.algorithm.state_dict().get("weights", np.ones(len(self.replica.chunks)))
        weight = np.repeat(weights, [chunk.x.size for chunk in self.replica.chunks])
        return weight * self.x.astype(np.float64) + self.replica.corrections[0].astype(np.float64), weight


class Simulation:
    """A world of workers ready to train; `simulate` describes the arguments.

    Attributes:
        world: the simulated world, for scripted faults.
        workers: one a rank.
        parameters: (size, dimension); row r is rank r's replica, live.
        averages_exactly: whether the run needs the collectives; if not, they are not started.
    """

    def __init__(
        self,
        algorithm: str | type[Algorithm],
        problem: Problem,
        *,
        size: int,
        topology: Any = "auto",
        settings: MixingSettings | None = None,
        links: Links | None = None,
        compute: ComputeModel | None = None,
        learning_rate: Schedule = 0.1,
        chunk_bytes: int = CHUNK_BYTES,
        sample_every: int = 1,
        consensus_every: int = 0,
        joins: Mapping[int, Sequence[int]] | None = None,
        seed: int = 0,
        **world_options: Any,
    ) -> None:
        cls = find_algorithm(algorithm) if isinstance(algorithm, str) else algorithm
        self.settings = settings or MixingSettings(seed=seed)
        cls.validate(self.settings)
        spec = cls.default_topology if isinstance(topology, str) and topology == "auto" else topology
        self.topology = fit_topology(make_topology(spec, size, seed=self.settings.seed), cls.needs)
        self.world = SimulatedWorld(size, links=links, seed=seed, **world_options)
        self.problem = problem
        self.compute = compute or ComputeModel(seed=seed)
        self.cores = Cores(self.compute.cores)
        self.learning_rate = learning_rate
        self.chunk_bytes = chunk_bytes
        self.seed = seed
        self.consensus_every = consensus_every
        self.joins = joins or {}
        self.averages_exactly = (
            cls.averages == "gradients"
            or cls.needs == "none"
            or self.settings.outer != "none"
            or self.settings.global_average_every > 0
            or consensus_every > 0
            or bool(self.joins)
        )
        self.parameters: Vector = np.stack([problem.initial(rank) for rank in range(size)])
        self._sample_steps = sample_every * size
        self._total_steps = 0
        self._samples: list[tuple[float, Vector, float]] = []
        self.workers = [Worker(self, rank, cls, self.topology) for rank in range(size)]

    def run(
        self,
        steps: int | None = None,
        time: float | None = None,
        departures: Mapping[int, int] | None = None,
        deaths: Mapping[int, float] | None = None,
    ) -> Report:
        """Trains, until every worker has departed and nothing is left to happen."""
        if steps is None and time is None:
            raise ConfigError("simulate needs a number of steps or a time to train for")
        departures, last = departures or {}, math.inf if steps is None else steps
        for rank, at in (deaths or {}).items():
            self.world.kill(rank, at)
        until = math.inf if time is None else time
        training = [
            worker.endpoint.spawn(worker.train(min(departures.get(worker.rank, last), last), until), "training")
            for worker in self.workers
        ]
        self.world.run(training)
        self.world.run()
        return self._report()

    def stepped(self) -> None:
        """Counts a worker's step, and samples the trajectory every `sample_every` steps a rank."""
        self._total_steps += 1
        if self._sample_steps and self._total_steps % self._sample_steps == 0:
            live = self.parameters[self.alive()]
            self._samples.append((self.world.now, _mean(live), _distance(live)))

    def alive(self) -> Vector:
        """Which ranks live, a boolean each."""
        return np.array([rank not in self.world.dead for rank in range(self.world.size)])

    def mass(self) -> tuple[Vector, Vector]:
        """Sum over the live workers of `Worker.mass`."""
        parts = [worker.mass() for worker in self.workers if worker.rank not in self.world.dead]
        return np.sum([x for x, _ in parts], axis=0), np.sum([weight for _, weight in parts], axis=0)

    def _report(self) -> Report:
        workers = self.workers
        return Report(
            algorithm=workers[0].algorithm.name,
            topology=self.topology.name,
            time=self.world.now,
            steps=np.array([worker.steps for worker in workers]),
            finished_at=np.array([worker.finished_at for worker in workers]),
            departed_at=np.array([worker.departed_at for worker in workers]),
            waited=np.array([worker.waited for worker in workers]),
            parameters=self.parameters.copy(),
            alive=self.alive(),
            times=np.array([sample[0] for sample in self._samples]),
            means=np.array([sample[1] for sample in self._samples]),
            distances=np.array([sample[2] for sample in self._samples]),
            consensus=[worker.consensus for worker in workers],
            last_joined=[worker.last_joined for worker in workers],
            bytes_sent=np.array([worker.endpoint.bytes_sent for worker in workers]),
            counters=[worker.counters for worker in workers],
            events=self.world.events,
        )


def simulate(
    algorithm: str | type[Algorithm],
    problem: Problem,
    *,
    size: int,
    steps: int | None = None,
    time: float | None = None,
    departures: Mapping[int, int] | None = None,
    deaths: Mapping[int, float] | None = None,
    **options: Any,
) -> Report:
    """Trains `size` simulated workers and reports.

    Args:
        algorithm: a registered name, or a class.
        problem: gives initial parameters and gradients; see `Problem`, `LeastSquares`, `Still`.
        size: number of workers.
        steps: steps of each worker.
        time: virtual seconds; a worker begins no step after them. With `steps`: whichever comes first.
        departures: the step after which a rank leaves.
        deaths: the virtual time at which a rank dies without a word.
        options: topology ("auto", or what `make_topology` takes), settings (MixingSettings), links (Links), compute
            (ComputeModel), learning_rate (0.1; a number or a function of the step), chunk_bytes, sample_every (steps a
            worker between two samples of the trajectory; 0 takes none), consensus_every (steps between two exact means
            as `hvd.consensus(model)` takes them, counted from the last join; 0 takes none), joins (for each rank the
            numbers of its steps after which it joins as `hvd.join()` does, ascending, as many on every rank; one may come
            twice), seed (0), and SimulatedWorld's eager_limit, snapshot, in_flight and detection_delay.

    Raises:
        ConfigError: a setting has no meaning or an unknown value. TopologyError: the topology does not fit the algorithm.
        WaitTimeoutError: a step waited for longer than settings.wait_timeout (virtual seconds).
        DeadlockError: the workers wait for each other, and nothing is left that could end it.
    """
    return Simulation(algorithm, problem, size=size, **options).run(steps, time, departures, deaths)
