"""Outer steps and local SGD: what the rows of the conformance list leave out; in the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.algorithms.outer import Outer
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.errors import ConfigError
from hvd_gossip.simulate import ComputeModel, LeastSquares, Simulation, Still, simulate
from hvd_gossip.testing import Row
from hvd_gossip.testing.training import STEPS, problem, simulation
from hvd_gossip.testing.training import test_iterates_are_those_of_the_paper_s_equations as check_iterates
from hvd_gossip.transport.simulated_links import Links, exponential
from tests.algorithms import equations_outer

DILOCO = {"outer": "nesterov", "outer_every": 5, "outer_lr": 0.7, "outer_momentum": 0.9}
SLOWMO = {"outer": "slowmo", "outer_every": 3, "outer_lr": 0.9, "outer_momentum": 0.6}


@pytest.mark.parametrize("settings", [{"mixing_period": 3}, {"mixing_period": 5}], ids=str)
def test_local_sgd_averages_every_so_many_steps(settings: dict[str, Any]) -> None:
    check_iterates(Row("local", settings, iterates=equations_outer.local), 5)


@pytest.mark.parametrize("settings", [DILOCO, SLOWMO], ids=str)
def test_outer_steps_over_local_sgd(settings: dict[str, Any]) -> None:
    check_iterates(Row("local", settings, iterates=equations_outer.over_local), 5)


def test_slowmo_over_dpsgd() -> None:
    row = Row("dpsgd", SLOWMO, topologies=("ring",), iterates=equations_outer.over_dpsgd)
    check_iterates(row, 5)


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp", "adpsgd", "d2", "gradient-tracking", "qg-dsgdm", "local"])
def test_rate_one_and_no_momentum_is_the_exact_average(algorithm: str) -> None:
    """Of push-sum as well, whose weights differ; and asynchronous workers all have it when the step is over."""
    values = np.random.default_rng(0).standard_normal((6, 3))
    settings = MixingSettings(outer="slowmo", outer_every=7, outer_lr=1.0, outer_momentum=0.0)
    report = simulate(algorithm, Still(values.copy()), size=6, steps=7, settings=settings, chunk_bytes=16)
    np.testing.assert_allclose(report.parameters, np.tile(values.mean(axis=0), (6, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["slowmo", "nesterov"])
@pytest.mark.parametrize("algorithm", ["sgp", "adpsgd", "d2", "qg-dsgdm"])
def test_workers_of_any_base_have_one_outer_state(algorithm: str, kind: str) -> None:
    task = LeastSquares(5, skew=0.5)
    gentle = {"qg_momentum": 0.5} if algorithm == "qg-dsgdm" else {}
    settings = MixingSettings(outer=kind, outer_every=4, **gentle)
    links = Links(delay=exponential(0.02))
    world = Simulation(algorithm, task, size=5, settings=settings, links=links, learning_rate=0.02, chunk_bytes=16)
    report = world.run(steps=80)
    states = [worker.algorithm.state_dict() for worker in world.workers]
    for state in states[1:]:
        np.testing.assert_array_equal(state["anchor"], states[0]["anchor"])
        np.testing.assert_array_equal(state["velocity"], states[0]["velocity"])
    assert task.loss(report.mean) < 0.5 * task.loss(np.zeros(8))


def test_slow_momentum_speeds_up() -> None:
    task = LeastSquares(4, skew=0.1)
    options: dict[str, Any] = {"size": 4, "steps": 96, "learning_rate": 0.01}
    plain = simulate("local", task, settings=MixingSettings(mixing_period=8), **options)
    slow = simulate("local", task, settings=MixingSettings(outer="slowmo", outer_every=8), **options)
    assert task.loss(slow.mean) < 0.5 * task.loss(plain.mean)


@pytest.mark.parametrize(("algorithm", "topology"), [("local", "auto"), ("dpsgd", "ring"), ("d2", "ring")])
def test_a_checkpoint_goes_on_bit_by_bit(algorithm: str, topology: str) -> None:
    """Taken between two outer steps."""
    order = {} if algorithm == "local" else {"mixing_order": "sequential"}
    row = Row(algorithm, {"outer": "nesterov", "outer_every": 4, **order})
    whole = simulation(row, problem(5), 5, topology).run(steps=STEPS).parameters
    first = simulation(row, problem(5), 5, topology)
    half = first.run(steps=STEPS // 2).parameters
    second = simulation(row, problem(5, half), 5, topology)
    for worker, before in zip(second.workers, first.workers, strict=True):
        worker.algorithm.load_state_dict(before.algorithm.state_dict())
    np.testing.assert_array_equal(second.run(steps=STEPS // 2).parameters, whole)


def test_one_worker_that_is_restored_alone_is_brought_into_line() -> None:
    row = Row("local", DILOCO)
    first = simulation(row, problem(3), 3)
    first.run(steps=STEPS)
    second = simulation(row, problem(3), 3)
    second.workers[1].algorithm.load_state_dict({**first.workers[1].algorithm.state_dict(), "steps": 0})
    second.run(steps=STEPS)
    states = [worker.algorithm.state_dict() for worker in second.workers]
    for state in states[1:]:
        np.testing.assert_array_equal(state["anchor"], states[0]["anchor"])


@pytest.mark.parametrize("algorithm", ["local", "dpsgd", "adpsgd", "sgp"])
@pytest.mark.parametrize("seed", range(4))
def test_who_rested_has_the_same_outer_state_again(algorithm: str, seed: int) -> None:
    """Epochs of different lengths: some workers miss outer steps that others take."""
    size = 4
    plan = np.random.default_rng(seed).integers(0, 9, size=(size, 3))
    joins = {rank: np.cumsum(plan[rank]).tolist() for rank in range(size)}
    last = plan.sum(axis=1) + 6
    settings = MixingSettings(outer="slowmo", outer_every=3)
    options: dict[str, Any] = {"links": Links(delay=exponential(0.05)), "compute": ComputeModel(0.05, exponential(1.0))}
    world = Simulation(
        algorithm, LeastSquares(size, skew=0.5), size=size, settings=settings, joins=joins, seed=seed, **options
    )
    report = world.run(steps=10**9, departures={rank: int(steps) for rank, steps in enumerate(last)})
    assert report.steps.tolist() == last.tolist()
    states = [worker.algorithm.state_dict() for worker in world.workers]
    for state in states[1:]:
        np.testing.assert_array_equal(state["velocity"], states[0]["velocity"])


@pytest.mark.parametrize("algorithm", ["local", "dpsgd", "adpsgd"])
def test_who_has_departed_is_left_out(algorithm: str) -> None:
    values = np.arange(8.0).reshape(4, 2)
    settings = MixingSettings(outer="slowmo", outer_every=5, outer_momentum=0.0)
    topology = "complete"
    report = simulate(
        algorithm, Still(values.copy()), size=4, steps=10, settings=settings, departures={2: 0}, topology=topology
    )
    stayed = values[[0, 1, 3]]
    np.testing.assert_allclose(report.parameters[[0, 1, 3]], np.tile(stayed.mean(axis=0), (3, 1)), atol=1e-12)


def test_a_broadcast_begins_anew() -> None:
    """The anchor is taken at the first step after it, and what was gone before does not push any more."""
    world = Simulation("local", Still(np.zeros((1, 2))), size=1, settings=MixingSettings(**DILOCO))
    worker = world.workers[0]
    algorithm = worker.algorithm
    assert isinstance(algorithm, Outer)
    algorithm.load_state_dict(
        {**algorithm.state_dict(), "anchored": True, "velocity": [np.ones(2)], "anchor": [np.full(2, 9.0)]}
    )
    algorithm.forget()
    world.run(steps=5)
    np.testing.assert_array_equal(worker.x, np.zeros(2))


def test_it_shows_itself_as_the_algorithm_beneath() -> None:
    settings = MixingSettings(outer="slowmo")
    algorithm = Simulation("sgp", Still(np.zeros((2, 2))), size=2, settings=settings).workers[0].algorithm
    assert (algorithm.name, algorithm.averages, algorithm.synchronous) == ("sgp", "parameters", True)
    assert algorithm.phase == 0
    with pytest.raises(AttributeError, match="nonsense"):
        _ = algorithm.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("algorithm", "settings", "message"),
    [
        ("allreduce", {"outer": "slowmo"}, "outer='slowmo' has no meaning with algorithm 'allreduce'"),
        ("local", {"outer": "slowmo", "mixing_period": 2}, "averages every outer_every=48 steps"),
        ("local", {"global_average_every": 3}, "global_average_every=3 has no meaning with algorithm 'local'"),
        ("local", {"wire_dtype": "float16"}, "wire_dtype='float16' has no meaning"),
    ],
)
def test_settings_that_contradict_each_other(algorithm: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(algorithm, Still(np.zeros((2, 1))), size=2, steps=1, settings=MixingSettings(**settings))


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp", "local"])
def test_a_mean_leaves_out_who_is_not_finite(algorithm: str) -> None:
    """That of `hvd.consensus(model)`, chunk by chunk; what nobody has is NaN."""
    values = np.arange(12.0).reshape(3, 4)
    values[1, 0] = np.nan
    values[:, 3] = np.inf
    options: dict[str, Any] = {"topology": "complete", "chunk_bytes": 8, "sample_every": 0}
    report = simulate(algorithm, Still(values.copy()), size=3, steps=1, consensus_every=1, **options)
    for rank in range(3):
        (mean,) = report.consensus[rank]
        np.testing.assert_allclose(mean, [4.0, 5.0, 6.0, np.nan])
    assert report.counters[1].refused[1] > 0
