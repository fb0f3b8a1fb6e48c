"""What every algorithm must show, whatever it is: its equations, training, checkpoints; in the simulator."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, LeastSquares, Report, Simulation, Still
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.row import Row
from hvd_gossip.testing.run import Run
from hvd_gossip.testing.selection import mixes, select
from hvd_gossip.transport.simulated_links import Links, exponential, lognormal, uniform

STEPS, RATE = 12, 0.05
SLOW_LINKS = Links(latency=0.001, bandwidth=1e6, delay=uniform(0.0, 0.2))


class Different(LeastSquares):
    """Least squares whose workers begin at different places, or where they are told to."""

    start: Vector | None = None

    def initial(self, rank: int) -> Vector:
        random = np.random.default_rng(rank).standard_normal((self.inputs.shape[2],))
        start: Vector = random if self.start is None else self.start[rank].copy()
        return start


def problem(size: int, start: Vector | None = None, **options: Any) -> Different:
    task = Different(size, **{"dimension": 6, "skew": 1.0, **options})
    task.start = start
    return task


def simulation(row: Row, task: Any, size: int, topology: Any = "auto", **options: Any) -> Simulation:
    settings = MixingSettings(**{**row.settings, **options.pop("settings", {})})
    options = {"links": SLOW_LINKS, "learning_rate": RATE, "chunk_bytes": 16, **options}
    return Simulation(row.algorithm, task, size=size, topology=topology, settings=settings, **options)


def run(row: Row, task: Any, size: int, topology: Any = "auto", steps: int = STEPS, **options: Any) -> Report:
    return simulation(row, task, size, topology, **options).run(steps=steps)


# Equations


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@select(lambda row: mixes(row) and row.iterates is not None)
def test_iterates_are_those_of_the_paper_s_equations(row: Row, size: int) -> None:
    for topology in (*row.topologies, row.random_topology(size, size)):
        simulated = simulation(row, problem(size), size, topology)
        assert row.iterates is not None
        expected = row.iterates(Run(problem(size), simulated.topology, STEPS, RATE, row.settings))
        actual = simulated.run(steps=STEPS).parameters
        np.testing.assert_allclose(actual, expected, rtol=0, atol=row.tolerance, err_msg=str(topology))


@select(lambda row: row.is_wrapped_alone)
def test_one_worker_is_the_wrapped_optimizer_to_the_last_bit(row: Row) -> None:
    task = problem(1, dtype=np.float32)
    x, rng = task.initial(0), np.random.default_rng(0)
    for _ in range(STEPS):
        x -= RATE * task.gradient(0, x, rng)
    np.testing.assert_array_equal(run(row, task, 1).parameters[0], x)


@select(lambda row: row.iterates is not None and not row.is_wrapped_alone)
def test_one_worker_does_what_the_equations_say(row: Row) -> None:
    """Their momentum, or whatever they add to the wrapped optimizer, is theirs with one worker as well."""
    simulated = simulation(row, problem(1), 1)
    assert row.iterates is not None
    expected = row.iterates(Run(problem(1), simulated.topology, STEPS, RATE, row.settings))
    np.testing.assert_allclose(simulated.run(steps=STEPS).parameters, expected, rtol=0, atol=row.tolerance)


# Training


@select(mixes)
def test_it_comes_near_the_optimum_of_workers_whose_data_are_alike(row: Row) -> None:
    """The asynchronous ones under jitter and with one worker three times slower."""
    task = problem(6, skew=0.0)
    slow = {} if row.synchronous else {2: 3.0}
    compute = ComputeModel(0.05, lognormal(1.0, 0.3), slow=slow)
    links = Links(latency=1e-3, delay=exponential(1e-3))
    report = run(row, task, 6, steps=row.steps, compute=compute, links=links)
    assert task.loss(report.mean) < task.loss(task.optimum) * 1.1
    assert report.consensus_distance < 0.2


@select(lambda row: mixes(row) and row.comes_to_consensus)
def test_without_updates_all_come_to_the_mean(row: Row) -> None:
    values = np.random.default_rng(7).standard_normal((7, 5))
    report = run(row, Still(values.copy()), 7, steps=150, links=Links(latency=1e-3))
    np.testing.assert_allclose(report.parameters, np.tile(values.mean(axis=0), (7, 1)), rtol=0, atol=1e-4)


# Checkpoints


def can_be_cut(row: Row) -> bool:
    """Whether nothing is on its way between two steps, and no step is counted from the beginning of a run."""
    counted = row.settings.get("mixing_period", 1) > 1 or row.settings.get("global_average_every", 0)
    return mixes(row) and row.synchronous and "sequential" in row.kind.orders and not counted


@select(can_be_cut)
def test_a_checkpoint_goes_on_bit_by_bit(row: Row) -> None:
    """Six steps and six more are twelve."""
    row = dataclasses.replace(row, settings={**row.settings, "mixing_order": "sequential"})
    topology = next(name for name in row.topologies if name != "auto")
    whole = run(row, problem(5), 5, topology)
    first = simulation(row, problem(5), 5, topology)
    half = first.run(steps=STEPS // 2).parameters
    states = [worker.algorithm.state_dict() for worker in first.workers]
    second = simulation(row, problem(5, half), 5, topology)
    for worker, state in zip(second.workers, states, strict=True):
        worker.algorithm.load_state_dict(state)
    np.testing.assert_array_equal(second.run(steps=STEPS // 2).parameters, whole.parameters)
