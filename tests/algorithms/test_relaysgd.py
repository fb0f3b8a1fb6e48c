"""RelaySGD beyond the list of rows: the paper's counters, the sum that it keeps, what a departure does, skewed data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.algorithms.relaysgd import workers_beyond
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.errors import TopologyError
from hvd_gossip.simulate import LeastSquares, Simulation, Still
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing import Run, random_tree
from hvd_gossip.testing.training import problem
from hvd_gossip.testing.worlds import Drift
from hvd_gossip.topology import make_topology
from tests.algorithms.equations import Messages, relaysgd_overlap

RATE = 0.05
TREES = ["chain", "binary-tree", "star"]
few = settings(max_examples=settings().max_examples // 5)


def simulation(task: Any, size: int, topology: Any = "auto", **options: Any) -> Simulation:
    mixing = MixingSettings(**options.pop("settings", {}))
    return Simulation("relaysgd", task, size=size, topology=topology, settings=mixing, chunk_bytes=16, **options)


def algorithm_1(run: Run) -> Vector:
    """The paper's own form, with counters, and x(0) in the place of those that have not been heard of."""
    size, x, start = run.topology.size, run.start, run.start[0]
    near = [list(run.topology.in_weights(rank, 0)) for rank in range(size)]
    sums = {(i, j): np.zeros_like(start) for i in range(size) for j in near[i]}
    counts = dict.fromkeys(sums, 0)
    for _ in range(run.steps):
        x = x + run.updates(x)
        old_sums, old_counts = sums, counts
        sums = {(i, j): x[i] + sum(old_sums[k, i] for k in near[i] if k != j) for i, j in old_sums}
        counts = {(i, j): 1 + sum(old_counts[k, i] for k in near[i] if k != j) for i, j in old_counts}
        heard = [1 + sum(counts[j, i] for j in near[i]) for i in range(size)]
        x = np.stack(
            [(x[i] + sum(sums[j, i] for j in near[i]) + (size - heard[i]) * start) / size for i in range(size)]
        )
    return x


@pytest.mark.parametrize("size", [2, 5, 8])
@pytest.mark.parametrize("name", TREES)
def test_iterates_are_those_of_algorithm_1_with_its_counters(name: str, size: int) -> None:
    start = np.tile(np.random.default_rng(1).standard_normal(6), (size, 1))
    simulated = simulation(
        problem(size, start), size, name, settings={"mixing_order": "sequential"}, learning_rate=RATE
    )
    expected = algorithm_1(Run(problem(size, start), simulated.topology, 12, RATE, {}))
    np.testing.assert_allclose(simulated.run(steps=12).parameters, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", TREES)
def test_iterates_with_exact_averages(name: str) -> None:
    """After one, all suppose that all are at the mean."""
    settings = {"global_average_every": 5}
    simulated = simulation(problem(7), 7, name, settings=settings, learning_rate=RATE)
    expected = relaysgd_overlap(Run(problem(7), simulated.topology, 12, RATE, settings))
    np.testing.assert_allclose(simulated.run(steps=12).parameters, expected, rtol=0, atol=1e-11)


def conserved(simulated: Simulation) -> Vector:
    """The sum that RelaySGD keeps, from what the workers hold."""
    size = len(simulated.workers)
    total: Vector = simulated.parameters.sum(axis=0)
    for worker in simulated.workers:
        algorithm: Any = worker.algorithm
        for peer, beyond in algorithm._beyond.items():
            assert all(algorithm._counts[peer] == beyond)
            total = total + (size - beyond - 1) / size * beyond * algorithm._remembered[peer].flats[0]
    return total


@few
@given(size=st.integers(2, 16), seed=st.integers(0, 2**20), steps=st.integers(1, 12))
def test_the_sum_of_parameters_and_messages_changes_by_the_updates_alone(size: int, seed: int, steps: int) -> None:
    task = Drift(size, seed=seed)
    simulated = simulation(task, size, random_tree(size, seed), learning_rate=0.1)
    before = Messages(Run(task, simulated.topology, steps, 0.1, {})).conserved(task.values)  # type: ignore[arg-type]
    simulated.run(steps=steps)
    moved = -0.1 * steps * task.slopes.sum(axis=0)
    np.testing.assert_allclose(conserved(simulated), before + moved, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", TREES)
def test_without_updates_all_come_to_what_the_kept_sum_says(name: str) -> None:
    size, start = 9, np.random.default_rng(5).standard_normal((9, 4))
    simulated = simulation(Still(start.copy()), size, name)
    messages = Messages(Run(Still(start), simulated.topology, 0, RATE, {}))  # type: ignore[arg-type]
    weight = size + sum((size - count - 1) / size * count for count in messages.beyond.values())
    report = simulated.run(steps=120)
    np.testing.assert_allclose(
        report.parameters, np.tile(messages.conserved(start) / weight, (size, 1)), rtol=0, atol=1e-3
    )


def test_after_an_evaluation_the_limit_is_the_exact_mean() -> None:
    """Whatever came before: all remember it."""
    size = 7
    simulated = simulation(Drift(size), size, "chain", consensus_every=4, learning_rate=0.1)
    report = simulated.run(steps=4)
    weights = conserved(simulated)
    messages = Messages(Run(Drift(size), simulated.topology, 0, RATE, {}))  # type: ignore[arg-type]
    total = size + sum((size - count - 1) / size * count for count in messages.beyond.values())
    np.testing.assert_allclose(weights / total, report.consensus[0][0], rtol=0, atol=1e-12)


def test_skewed_data_move_relaysgd_less_from_the_optimum_than_dpsgd() -> None:
    """Table 2 of the paper in the small: the same tree, steps and rate; workers' optima far apart."""
    task, size = LeastSquares(8, skew=3.0), 8
    distances = {}
    for name in ("relaysgd", "dpsgd"):
        report = Simulation(name, task, size=size, topology="chain", learning_rate=0.02).run(steps=150)
        distances[name] = float(np.abs(report.parameters - task.optimum).max())
    assert distances["relaysgd"] < 0.5 * distances["dpsgd"]


@pytest.mark.parametrize("leaver", [0, 2, 4])
def test_who_leaves_cuts_the_tree_and_each_part_comes_to_one_value(leaver: int) -> None:
    start = np.random.default_rng(2).standard_normal((5, 3))
    report = simulation(Still(start.copy()), 5, "chain").run(steps=80, departures={leaver: 3})
    for part in (range(leaver), range(leaver + 1, 5)):
        values = report.parameters[list(part)]
        if len(values):
            np.testing.assert_allclose(values, np.tile(values[0], (len(values), 1)), rtol=0, atol=1e-6)
    assert np.all(report.parameters <= start.max(axis=0) + 1e-12)
    assert np.all(report.parameters >= start.min(axis=0) - 1e-12)


def test_a_narrow_wire_carries_means_whatever_the_number_of_workers() -> None:
    """Sums of 32 workers' values of 1e4 would be beyond float16's range."""
    start = np.full((32, 4), 1e4) + np.random.default_rng(0).standard_normal((32, 4))
    report = simulation(Still(start), 32, "binary-tree", settings={"wire_dtype": "float16"}).run(steps=40)
    assert not any(counters.poisoned for counters in report.counters)
    np.testing.assert_allclose(report.parameters, 1e4, rtol=1e-3)


@pytest.mark.parametrize("spec", ["ring", "complete", "random-matching"])
def test_topology_that_is_no_tree_is_an_error(spec: str) -> None:
    with pytest.raises(TopologyError, match="tree"):
        simulation(Still(np.ones((6, 2))), 6, spec)


def test_workers_beyond_an_edge_are_counted() -> None:
    tree = make_topology("binary-tree", 7)
    assert [workers_beyond(tree, 0, peer) for peer in (1, 2)] == [3, 3]
    assert [workers_beyond(tree, 1, peer) for peer in (0, 3, 4)] == [4, 1, 1]


def test_consensus_samples_are_near_the_distance() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((16, 400))
    mixing = MixingSettings(consensus_sample_every=1)
    simulated = Simulation("relaysgd", Still(values), size=16, topology="binary-tree", settings=mixing)
    simulated.run(steps=1)
    samples = np.array([worker.counters.consensus_sample for worker in simulated.workers], float)
    assert np.sqrt(np.square(samples).mean()) == pytest.approx(20.0, rel=0.3)
