"""The training harness of the simulated world: compute model, problems, reports."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import pytest

from hvd_gossip.algorithms.base import Algorithm, Wait
from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.algorithms.sgp import SGP
from hvd_gossip.errors import ConfigError, PeerFailedError, TopologyError, WaitTimeoutError
from hvd_gossip.simulate import ComputeModel, LeastSquares, Report, Simulation, Still, simulate
from hvd_gossip.simulate_compute import Cores
from hvd_gossip.transport.simulated import DeadlockError
from hvd_gossip.transport.simulated_links import Links, exponential, uniform

R = TypeVar("R")
NAMES = sorted(ALGORITHMS)
GOSSIP = sorted(name for name, cls in ALGORITHMS.items() if cls.averages == "parameters")
FAST = Links(latency=1e-6, bandwidth=1e12)


# Compute times


def first_times(model: ComputeModel, rank: int, count: int = 2000) -> list[float]:
    return list(itertools.islice(model.times(rank), count))


def test_compute_times_without_jitter_are_the_mean() -> None:
    assert first_times(ComputeModel(0.2), 3, 4) == [0.2] * 4


def test_jitter_multiplies_the_mean() -> None:
    times = first_times(ComputeModel(0.2, uniform(0.5, 1.5)), 0)
    assert statistics.fmean(times) == pytest.approx(0.2, rel=0.03)
    assert 0.1 <= min(times) < max(times) <= 0.3


def test_slow_ranks_are_slow_by_their_factor() -> None:
    model = ComputeModel(0.2, slow={1: 10.0})
    assert [first_times(model, rank, 1)[0] for rank in range(3)] == [0.2, 2.0, 0.2]


def test_jitter_differs_by_rank_and_seed_and_repeats() -> None:
    def draws(seed: int, rank: int) -> list[float]:
        return first_times(ComputeModel(1.0, exponential(1.0), seed=seed), rank, 3)

    assert draws(0, 0) == draws(0, 0)
    assert draws(0, 0) != draws(0, 1) != draws(1, 1)


def test_who_finds_no_core_free_waits_for_its_turn() -> None:
    cores = Cores(2)
    assert [cores.occupy(1.0, 0.5) for _ in range(5)] == [0.5, 0.5, 1.0, 1.0, 1.5]
    assert cores.occupy(10.0, 0.5) == 0.5
    assert [Cores(0).occupy(1.0, 0.5) for _ in range(3)] == [0.5] * 3


@pytest.mark.parametrize(("cores", "seconds"), [(0, 0.06), (4, 0.06), (2, 0.07), (1, 0.09)])
def test_workers_that_share_cores_take_turns(cores: int, seconds: float) -> None:
    """Four that compute for 50 ms at once and then want a core for 10 each; after the first step they are out of step."""
    compute = ComputeModel(0.05, cpu=0.01, cores=cores)
    report = simulate("local", Still(np.zeros((4, 8))), size=4, steps=1, compute=compute)
    assert report.finished_at.max() == pytest.approx(seconds, rel=1e-3)
    report = simulate("allreduce", Still(np.zeros((4, 8))), size=4, steps=10, compute=compute, links=FAST)
    assert report.finished_at.max() == pytest.approx(10 * seconds, rel=1e-3)


def test_what_runs_in_the_background_takes_cores_but_no_step() -> None:
    compute = ComputeModel(0.05, cpu=0.01, background=0.02, cores=1)
    alone = simulate("local", Still(np.zeros((1, 8))), size=1, steps=10, compute=compute)
    assert alone.finished_at.max() == pytest.approx(10 * 0.06, rel=1e-3)
    crowd = simulate(
        "local",
        Still(np.zeros((4, 8))),
        size=4,
        steps=100,
        compute=compute,
        settings=MixingSettings(mixing_period=1000),
    )
    assert crowd.finished_at.max() == pytest.approx(
        100 * 4 * 0.03, rel=0.02
    )  # as fast as the core can do all their work


# Problems


def test_least_squares_knows_its_optimum() -> None:
    problem = LeastSquares(5, skew=1.0)
    rng = np.random.default_rng(0)
    gradients = [problem.gradient(rank, problem.optimum, rng) for rank in range(5)]
    np.testing.assert_allclose(np.mean(gradients, axis=0), 0, atol=1e-12)
    assert max(np.linalg.norm(gradient) for gradient in gradients) > 0.1
    assert problem.loss(problem.optimum) < problem.loss(problem.optimum + 0.01)


def test_least_squares_gradient_is_that_of_its_loss() -> None:
    problem = LeastSquares(1, dimension=3)
    x, step = np.array([0.3, -0.2, 0.1]), 1e-6
    numeric = [(problem.loss(x + step * unit) - problem.loss(x - step * unit)) / (2 * step) for unit in np.eye(3)]
    np.testing.assert_allclose(problem.gradient(0, x, np.random.default_rng(0)), numeric, rtol=1e-6)


def test_least_squares_batches_are_unbiased() -> None:
    problem, whole = LeastSquares(2, batch=4), LeastSquares(2)
    rng = np.random.default_rng(0)
    x = np.ones(8)
    drawn = np.array([problem.gradient(1, x, rng) for _ in range(4000)])
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(axis=0) - whole.gradient(1, x, rng)) < 4 * error)


def test_least_squares_keeps_its_dtype() -> None:
    problem = LeastSquares(2, dtype=np.float32)
    x = problem.initial(0)
    assert x.dtype == problem.gradient(0, x, np.random.default_rng(0)).dtype == np.float32


# Training


def test_every_algorithm_comes_near_the_optimum() -> None:
    problem = LeastSquares(6, skew=0.5)
    fine = {"choco": MixingSettings(compressor="qsgd-8")}  # one element of eight, the default here, takes longer
    for name in NAMES:
        options: dict[str, Any] = {"learning_rate": lambda step: 0.3 / (1 + step / 20), "settings": fine.get(name)}
        report = simulate(name, problem, size=6, steps=400, **options)
        assert np.linalg.norm(report.mean - problem.optimum) < 0.02, name
        assert report.consensus_distance < 0.05, name


@pytest.mark.parametrize("name", NAMES)
def test_the_report_tells_what_happened(name: str) -> None:
    report = simulate(name, LeastSquares(4, dimension=3), size=4, steps=10, links=FAST)
    assert (report.algorithm, report.steps.tolist(), report.parameters.shape) == (name, [10] * 4, (4, 3))
    assert report.finished_at == pytest.approx([0.5] * 4, abs=1e-3)
    assert report.time >= report.finished_at.max()
    assert np.all(report.waited < 1e-3)
    assert np.all(report.bytes_sent > 0)
    assert report.alive.all()
    assert report.events > 40
    assert report.means.shape == (10, 3)
    assert np.all(np.diff(report.times) >= 0)
    np.testing.assert_array_equal(report.mean, report.parameters.mean(axis=0))
    spread = np.sqrt(((report.parameters - report.mean) ** 2).sum(axis=1).mean())
    assert report.consensus_distance == pytest.approx(spread)


def comparable(report: Report) -> dict[str, Any]:
    return {key: np.asarray(value).tolist() if key != "counters" else value for key, value in asdict(report).items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_report(name: str) -> None:
    def run(seed: int) -> dict[str, Any]:
        links = Links(delay=exponential(0.02))
        compute = ComputeModel(0.05, exponential(1.0), seed=seed)
        return comparable(
            simulate(name, LeastSquares(5, batch=2), size=5, steps=8, links=links, compute=compute, seed=seed)
        )

    assert run(1) == run(1)
    assert run(1)["parameters"] != run(2)["parameters"]


def test_a_straggler_holds_up_allreduce_but_not_adpsgd() -> None:
    problem, compute = LeastSquares(8), ComputeModel(0.05, slow={2: 10.0})
    waits = {name: simulate(name, problem, size=8, steps=20, compute=compute, links=FAST) for name in NAMES}
    fast = np.arange(8) != 2
    assert waits["allreduce"].finished_at == pytest.approx([10.0] * 8, rel=0.01)
    assert waits["adpsgd"].finished_at[fast] == pytest.approx([1.0] * 7, rel=0.01)
    assert np.all(waits["adpsgd"].waited == 0)
    assert waits["allreduce"].waited[fast] == pytest.approx([9.0] * 7, rel=0.01)


def test_within_a_time_fast_workers_take_more_steps() -> None:
    report = simulate("adpsgd", LeastSquares(4), size=4, time=2.0, compute=ComputeModel(0.05, slow={1: 8.0}))
    assert report.steps.tolist() == [40, 5, 40, 40]


@pytest.mark.parametrize("name", NAMES)
def test_a_rank_that_departs_takes_no_more_steps(name: str) -> None:
    report = simulate(name, LeastSquares(4), size=4, steps=12, departures={1: 5, 3: 0})
    assert report.steps.tolist() == [12, 5, 12, 0]
    assert np.all(report.parameters[3] == 0)


class Waiting(SGP):
    """Every step waits for a message of rank 1, which never sends one."""

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        yield lambda: self.context.endpoint.recv(1, self.context.channel + 8, np.zeros(1))
        return update()


def test_a_death_that_an_algorithm_cannot_bear_is_not_lost() -> None:
    with pytest.raises(PeerFailedError, match="rank 1 failed"):
        simulate(Waiting, LeastSquares(3), size=3, steps=50, deaths={1: 0.52}, detection_delay=0.1)


def test_a_wait_is_bounded_and_says_for_what() -> None:
    with pytest.raises(WaitTimeoutError, match="waited 1800 s for receiving from rank 1 on channel 72"):
        simulate(Waiting, LeastSquares(3), size=3, steps=3)


def test_workers_that_wait_for_ever_are_reported() -> None:
    with pytest.raises(DeadlockError, match="rank 2 waiting, awaiting receiving from rank 1 on channel 72"):
        simulate(Waiting, LeastSquares(3), size=3, steps=3, settings=MixingSettings(wait_timeout=math.inf))


def test_the_dead_do_not_count() -> None:
    simulation = Simulation("adpsgd", Still(np.arange(3.0)[:, None]), size=1, seed=3)
    assert simulation.alive().tolist() == [True]
    report = simulation.run(steps=50, deaths={0: 0.52})
    assert (report.steps.tolist(), report.alive.tolist()) == ([10], [False])


def test_samples_are_taken_as_often_as_asked() -> None:
    problem = LeastSquares(4)
    counts = [len(simulate("sgp", problem, size=4, steps=12, sample_every=every).times) for every in (0, 1, 3)]
    assert counts == [0, 12, 4]


def test_the_learning_rate_may_follow_the_step() -> None:
    rates = [0.3, 0.2, 0.1]
    problem = LeastSquares(1)
    x, rng = problem.initial(0), np.random.default_rng(0)
    for rate in rates:
        x = x - rate * problem.gradient(0, x, rng)
    report = simulate("sgp", problem, size=1, steps=3, learning_rate=lambda step: rates[step])
    np.testing.assert_array_equal(report.parameters[0], x)


OTHER_SUMS = ("relaysgd", "asgd", "asysg-incon")
"""Algorithms that do not keep the sum over the workers: theirs is in a tree's relays, or a server's model."""


@pytest.mark.parametrize("name", [name for name in GOSSIP if name not in OTHER_SUMS])
def test_consensus_gives_every_rank_the_same_mean(name: str) -> None:
    values = np.random.default_rng(0).standard_normal((5, 3))
    report = simulate(name, Still(values), size=5, steps=9, consensus_every=3)
    for means in report.consensus:
        assert len(means) == 3
        np.testing.assert_allclose(means, np.broadcast_to(values.mean(axis=0), (3, 3)), atol=1e-12)
    own = report.consensus_distance
    assert own == 0 if name == "local" else 0 < own < 0.5  # whose every step ends with the mean


def test_an_algorithm_may_be_given_as_a_class() -> None:
    class Renamed(SGP):
        name = "renamed"

    report = simulate(Renamed, LeastSquares(2), size=2, steps=3)
    assert (report.algorithm, report.steps.tolist()) == ("renamed", [3, 3])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"algorithm": "adpsdg", "steps": 1}, ConfigError, "Did you mean adpsgd"),
        ({"algorithm": "sgp"}, ConfigError, "number of steps or a time"),
        ({"algorithm": "sgp", "steps": 1, "topology": "rign"}, ConfigError, "ring"),
        ({"algorithm": "dpsgd", "steps": 1, "topology": np.eye(4)}, TopologyError, "not connected"),
        (
            {"algorithm": "adpsgd", "steps": 1, "settings": MixingSettings(mixing_order="sequential")},
            ConfigError,
            "mixing_order",
        ),
    ],
)
def test_bad_input_raises_before_anything_runs(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        simulate(problem=LeastSquares(4), size=4, **arguments)


def test_a_simulation_drives_the_registered_classes_themselves() -> None:
    worker = Simulation("dpsgd", LeastSquares(2), size=2).workers[0]
    assert type(worker.algorithm) is ALGORITHMS["dpsgd"]
    assert isinstance(worker.algorithm, Algorithm)
