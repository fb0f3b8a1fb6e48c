"""Asynchronous gradient push: its fixed point and rate, what bounds its messages and weights, stragglers and departures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.algorithms.agp import AGP, KEPT
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, LeastSquares, Simulation, Still, simulate
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.selection import few, very_few
from hvd_gossip.testing.worlds import STRAGGLER, Drift, Scene, departures, scenes, within
from hvd_gossip.transport.simulated_links import Links, exponential, lognormal


def weights(simulation: Simulation) -> Vector:
    """Each worker's smallest and largest weight of a chunk, (size, 2)."""
    kept = [worker.algorithm.state_dict()["weights"] for worker in simulation.workers]
    return np.array([(each.min(), each.max()) for each in kept])


# Fixed point and rate


def error_after(time: float, rate: float, **options: Any) -> float:
    """Distance of the mean to the optimum after so many seconds, 20 steps each; exact gradients, workers whose data differ."""
    problem = LeastSquares(8, skew=1.0, dimension=4)
    report = simulate("agp", problem, size=8, time=time, learning_rate=rate, seed=1, **options)
    return float(np.linalg.norm(report.mean - problem.optimum))


def test_its_fixed_point_is_the_optimum_but_for_the_step_size() -> None:
    compute, links = ComputeModel(0.05, lognormal(1.0, 0.2), seed=1), Links(delay=exponential(0.01))
    coarse, fine = (error_after(time, rate, compute=compute, links=links) for time, rate in ((10, 0.08), (60, 0.01)))
    assert fine < coarse / 3, (fine, coarse)
    assert fine < 0.05, fine


def test_its_rate_is_that_of_one_gradient_of_all_workers_a_step() -> None:
    """The mean moves by the workers' mean update a step, so far from the optimum it follows gradient descent."""
    problem = LeastSquares(8, skew=1.0, dimension=4)
    x, rng = np.zeros(4), np.random.default_rng(0)
    for _ in range(60):
        x = x - 0.02 * np.mean([problem.gradient(rank, x, rng) for rank in range(8)], axis=0)
    central = float(np.linalg.norm(x - problem.optimum))
    start = float(np.linalg.norm(problem.optimum))
    assert central < start / 2
    assert error_after(3, 0.02) == pytest.approx(central, rel=0.1)


@very_few
@given(size=st.integers(2, 24), seed=st.integers(0, 2**20))
def test_without_updates_all_come_to_the_mean_though_nobody_waits(size: int, seed: int) -> None:
    start = np.random.default_rng(seed).standard_normal((size, 3))
    links, compute = Links(delay=exponential(0.01)), ComputeModel(0.05, lognormal(1.0, 0.2), seed=seed)
    report = simulate("agp", Still(start), size=size, steps=200, links=links, compute=compute, seed=seed)
    assert np.all(report.waited == 0)
    np.testing.assert_allclose(report.parameters, np.tile(start.mean(axis=0), (size, 1)), rtol=0, atol=1e-3)


# Stragglers


@few
@given(scene=scenes(), leaving=departures(8), topology=st.sampled_from(["auto", "ring", "exponential", "complete"]))
def test_nobody_waits_and_every_weight_stays_in_bounds(scene: Scene, leaving: dict[int, int], topology: str) -> None:
    leaving = within(leaving, scene.size)
    problem = Drift(scene.size, seed=scene.seed)
    simulation = scene.simulation("agp", problem, topology=topology)
    report = simulation.run(steps=8, departures=leaving)
    assert report.steps.tolist() == [leaving.get(rank, 8) for rank in range(scene.size)]
    assert np.all(report.waited == 0)
    assert weights(simulation).min() >= KEPT - 1e-12
    total, weight = simulation.mass()
    np.testing.assert_allclose(total, problem.sum_after(report.steps, 0.1), rtol=0, atol=1e-9)
    np.testing.assert_allclose(weight, scene.size, rtol=1e-12)


@pytest.mark.parametrize("topology", ["auto", "ring", "complete"])
def test_a_straggler_neither_gathers_the_mass_nor_holds_anybody_up(topology: str) -> None:
    compute = ComputeModel(0.05, lognormal(1.0, 0.1), slow={2: STRAGGLER})
    problem = LeastSquares(8)
    simulation = Simulation("agp", problem, size=8, compute=compute, topology=topology)
    report = simulation.run(steps=60, departures={2: 1})
    fast = np.arange(8) != 2
    assert np.all(report.waited == 0)
    assert report.departed_at[fast].max() < 5 < 400 < report.departed_at[2]
    fast_mean = report.parameters[fast].mean(axis=0)
    assert problem.loss(fast_mean) < 1.2 * problem.loss(problem.optimum)


def test_an_edge_has_one_share_that_is_not_taken() -> None:
    """The straggler's in-neighbours make hundreds of steps; it is sent as many shares as it takes, and one more."""
    compute = ComputeModel(0.05, slow={0: 50.0})
    simulation = Simulation("agp", Still(np.zeros((4, 3))), size=4, compute=compute, topology="complete")
    report = simulation.run(steps=200, departures={0: 3})
    received = [counters.bytes_received // 24 for counters in report.counters]
    assert 3 * 3 <= received[0] <= 3 * 4 + 3  # and what those who leave hand on
    assert received[1] > 100
    assert max(report.counters[1].staleness.values()) >= 40  # steps until rank 0 took its share


# Departures


@pytest.mark.parametrize("seed", range(6))
def test_who_departs_takes_at_most_its_share_of_the_weight(seed: int) -> None:
    compute, links = ComputeModel(0.05, lognormal(1.0, 0.5), seed=seed), Links(delay=exponential(0.05))
    simulation = Simulation("agp", LeastSquares(6), size=6, compute=compute, links=links, seed=seed)
    simulation.run(steps=40, departures={0: 10, 1: 12, 2: 15})
    kept = weights(simulation)
    assert kept[:3].max() <= 1 + 1e-12
    assert kept[3:, 0].sum() >= 3 - 1e-9


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [2, 5])
def test_all_may_leave_at_once_though_nothing_is_buffered(size: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((size, 2))
    simulation = Simulation(
        "agp",
        Still(values.copy()),
        size=size,
        seed=seed,
        eager_limit=0,
        links=Links(delay=exponential(0.05)),
        compute=ComputeModel(0.05, exponential(1.0), seed=seed),
        settings=MixingSettings(wait_timeout=math.inf),
    )
    report = simulation.run(steps=3)
    assert report.steps.tolist() == [3] * size
    np.testing.assert_allclose(simulation.mass()[0], values.sum(axis=0), atol=1e-12)


def test_a_share_is_whole_at_every_moment() -> None:
    """What a worker's step takes out of its weight during the update goes with the value that was there."""
    simulation = Simulation("agp", Still(np.ones((3, 4))), size=3, links=Links(delay=exponential(0.2)), chunk_bytes=16)
    simulation.run(steps=30)
    np.testing.assert_allclose(simulation.parameters, 1.0, rtol=1e-13)


def test_what_comes_during_the_update_counts() -> None:
    """The engine adds a share, and gives one, while the wrapped optimizer is at work."""
    simulation = Simulation("agp", Still(np.array([[1.0, 2.0], [5.0, 6.0]])), size=2)
    algorithm = simulation.workers[0].algorithm
    assert isinstance(algorithm, AGP)
    (chunk,) = algorithm.context.replica.chunks
    algorithm.weights[:] = 0.5

    def update() -> None:
        chunk.x += 10.0
        algorithm._add(chunk, 0.25, np.array([3.0, 4.0]))
        algorithm._add(chunk, -0.5, np.array([1.0, 1.0]))
        np.testing.assert_allclose(algorithm._model(chunk), (0.5 * np.array([1.0, 2.0]) + 10 + [0.25, 0.5]) / 0.25)

    algorithm._apply(update)
    expected = (0.5 * np.array([1.0, 2.0]) + 10 + 0.25 * np.array([3.0, 4.0]) - 0.5) / 0.25
    np.testing.assert_allclose(chunk.x, expected)


# Poison


class OneChunkPoisoned(Still):
    """Rank 0's second chunk is not finite from the start."""

    def __init__(self, values: Vector) -> None:
        super().__init__(values)
        values[0, 2] = math.nan


def test_a_chunk_that_is_not_finite_stays_with_its_sender_and_the_others_travel() -> None:
    values = np.random.default_rng(0).standard_normal((4, 4))
    simulation = Simulation("agp", OneChunkPoisoned(values.copy()), size=4, chunk_bytes=16)
    report = simulation.run(steps=120)
    mean = values[:, :2].mean(axis=0)
    np.testing.assert_allclose(report.parameters[:, :2], np.tile(mean, (4, 1)), atol=1e-4)
    assert np.all(np.isfinite(report.parameters[1:]))
    assert report.counters[0].refused[0] > 10
    assert sum(counters.refused.get(0, 0) for counters in report.counters[1:]) == report.counters[0].refused[0]
    np.testing.assert_allclose(simulation.mass()[1], 4.0, rtol=1e-12)
