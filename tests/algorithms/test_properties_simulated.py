"""What the algorithms have in particular, over random topologies, delays, reorderings, speeds and departures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.simulate import ComputeModel, LeastSquares, Report, Still, simulate
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing import random_directed_rounds, random_graph
from hvd_gossip.testing.invariants import Poisonous
from hvd_gossip.testing.selection import few, very_few
from hvd_gossip.testing.worlds import SEEDS, SIZES, STRAGGLER, Scene, departures, scenes, within
from hvd_gossip.topology import make_topology
from hvd_gossip.transport.simulated_links import Distribution, Links, exponential, lognormal

RATE = 0.1
STEPS = 8
some = settings(max_examples=settings().max_examples // 3)


# Consensus


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp"])
@few
@given(scene=scenes(slowest=3.0), steps=st.integers(1, 12))
def test_distance_contracts_at_the_spectral_gap_s_rate(algorithm: str, scene: Scene, steps: int) -> None:
    """Exactly so from the slowest eigenvector of a symmetric W."""
    graph = random_graph(scene.size, scene.seed)
    topology = make_topology(graph, scene.size)
    values, vectors = np.linalg.eigh(topology.matrix())
    slowest = vectors[:, np.argsort(-np.abs(values))[1]]
    start = np.stack([slowest, np.full(scene.size, 3.0)], axis=1)
    report = scene.simulation(algorithm, Still(start), topology=graph).run(steps=steps)
    before = math.sqrt(np.mean(slowest**2))
    after = before * (1 - topology.spectral_gap()) ** steps
    assert report.consensus_distance == pytest.approx(after, rel=1e-9, abs=1e-12)


@few
@given(
    scene=scenes(sizes=st.integers(2, 20), slowest=3.0),
    steps=st.integers(1, 20),
    name=st.sampled_from(["ring", "torus", "complete"]),
)
def test_distance_never_exceeds_the_spectral_gap_s_bound(scene: Scene, steps: int, name: str) -> None:
    start = np.random.default_rng(scene.seed).standard_normal((scene.size, 3))
    report = scene.simulation("dpsgd", Still(start), topology=name).run(steps=steps)
    before = math.sqrt(np.square(start - start.mean(axis=0)).sum(axis=1).mean())
    bound = before * (1 - make_topology(name, scene.size).spectral_gap()) ** steps
    assert report.consensus_distance <= bound * (1 + 1e-9) + 1e-12


@very_few
@given(size=st.integers(2, 24), seed=SEEDS, delay=st.sampled_from([0.0, exponential(1e-3), exponential(0.03)]))
def test_adpsgd_comes_to_consensus(size: int, seed: int, delay: Distribution) -> None:
    """Each average of a random pair halves what keeps the pair apart; steps are enough for many exchanges of each."""
    start = np.random.default_rng(seed).standard_normal((size, 3))
    links, compute = Links(delay=delay), ComputeModel(0.05, lognormal(1.0, 0.2), seed=seed)
    report = simulate("adpsgd", Still(start), size=size, steps=150, links=links, compute=compute, seed=seed)
    assert report.consensus_distance < 1e-3
    np.testing.assert_allclose(report.mean, start.mean(axis=0), rtol=0, atol=1e-12)


@few
@given(size=SIZES, seed=SEEDS, order=st.sampled_from(["overlap", "sequential"]), data=st.data())
def test_sgp_reaches_the_true_mean_on_directed_time_varying_graphs(
    size: int, seed: int, order: str, data: st.DataObject
) -> None:
    rounds = random_directed_rounds(size, seed)
    start = np.random.default_rng(seed).standard_normal((size, 3))
    steps = data.draw(st.integers(1, 40))
    x, w = start.copy(), np.ones((size, 1))
    for step in range(steps):
        x, w = rounds[step % len(rounds)] @ x, rounds[step % len(rounds)] @ w
    scene = data.draw(scenes(st.just(size), slowest=3.0))
    report = scene.simulation("sgp", Still(start), topology=rounds, mixing_order=order).run(steps=steps)
    np.testing.assert_allclose(report.parameters, x / w, rtol=0, atol=1e-10)
    assert report.consensus_distance <= np.abs(x / w - start.mean(axis=0)).max() * 3 * math.sqrt(size) + 1e-10


@pytest.mark.parametrize("size", [3, 8])
def test_sgp_s_limit_is_the_mean_although_the_matrices_are_not_doubly_stochastic(size: int) -> None:
    rounds = random_directed_rounds(size, size)
    assert max(np.abs(matrix.sum(axis=1) - 1).max() for matrix in rounds) > 0.2
    start = np.random.default_rng(0).standard_normal((size, 3))
    report = simulate("sgp", Still(start), size=size, topology=rounds, steps=500)
    np.testing.assert_allclose(report.parameters, np.tile(start.mean(axis=0), (size, 1)), rtol=0, atol=1e-10)


# Equivalence


def recurrence(problem: LeastSquares, matrix: Vector, steps: int, order: str) -> Vector:
    """D-PSGD as the paper writes it."""
    x, rng = np.zeros((len(matrix), problem.inputs.shape[2])), np.random.default_rng(0)
    for step in range(steps):
        updates = np.stack([-RATE * problem.gradient(rank, x[rank], rng) for rank in range(len(x))])
        mixing = matrix if step or order == "sequential" else np.eye(len(matrix))
        x = mixing @ (x + updates) if order == "sequential" else mixing @ x + updates
    return x if order == "sequential" else matrix @ x


@pytest.mark.parametrize("order", ["overlap", "sequential"])
@few
@given(scene=scenes())
def test_dpsgd_is_the_paper_s_recurrence_whatever_the_timing(order: str, scene: Scene) -> None:
    problem = LeastSquares(scene.size, skew=1.0, seed=scene.seed)
    graph = random_graph(scene.size, scene.seed)
    report = scene.simulation("dpsgd", problem, topology=graph, mixing_order=order).run(steps=STEPS)
    expected = recurrence(problem, make_topology(graph, scene.size).matrix(), STEPS, order)
    np.testing.assert_allclose(report.parameters, expected, rtol=0, atol=1e-12)


@very_few
@given(scene=scenes(sizes=st.integers(2, 12)))
def test_dpsgd_on_the_complete_graph_is_centralized_sgd(scene: Scene) -> None:
    problem = LeastSquares(scene.size, skew=1.0, seed=scene.seed)
    gossip = scene.simulation("dpsgd", problem, topology="complete", mixing_order="sequential").run(steps=STEPS)
    central = scene.simulation("allreduce", problem).run(steps=STEPS)
    np.testing.assert_allclose(gossip.parameters, central.parameters, rtol=0, atol=1e-12)


# Progress and departures


@some
@given(scene=scenes(), leaving=departures(STEPS), topology=st.sampled_from(["complete", "ring", "star", "random"]))
def test_adpsgd_never_waits_and_never_deadlocks(scene: Scene, leaving: dict[int, int], topology: str) -> None:
    spec = random_graph(scene.size, scene.seed) if topology == "random" else topology
    leaving = within(leaving, scene.size)
    simulation = scene.simulation("adpsgd", LeastSquares(scene.size), topology=spec)
    report = simulation.run(steps=STEPS, departures=leaving)
    assert report.steps.tolist() == [leaving.get(rank, STEPS) for rank in range(scene.size)]
    assert np.all(report.waited == 0)


@pytest.mark.parametrize("straggler", [0, 1])
def test_adpsgd_s_workers_leave_without_the_straggler(straggler: int) -> None:
    """Whether it initiates or responds."""
    compute = ComputeModel(0.05, lognormal(1.0, 0.1), slow={straggler: STRAGGLER})
    report = simulate("adpsgd", LeastSquares(8), size=8, steps=20, compute=compute)
    fast = np.arange(8) != straggler
    assert report.departed_at[fast].max() < 1.5 < 1000 < report.departed_at[straggler]


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("rank", range(3))
def test_adpsgd_bears_a_departure_at_any_moment_of_a_short_run(rank: int, step: int) -> None:
    for seed in range(20):
        options: dict[str, Any] = {
            "links": Links(delay=exponential(0.05)),
            "compute": ComputeModel(0.05, exponential(1.0), seed=seed),
            "seed": seed,
        }
        report = simulate("adpsgd", LeastSquares(3), size=3, steps=3, departures={rank: step}, **options)
        assert report.steps.sum() == 6 + min(step, 3)


def test_both_ends_of_a_pair_count_a_poisoned_chunk() -> None:
    problem = Poisonous(2, 0, math.nan)
    with np.errstate(invalid="ignore"):
        report = simulate("adpsgd", problem, size=2, steps=30, chunk_bytes=16)
    counts = [counters.poisoned for counters in report.counters]
    assert min(counts) > 10
    assert np.all(np.isfinite(report.parameters[1]))
    assert np.isnan(report.parameters[0]).sum() == 1


# Size


def run_large(algorithm: str, topology: str, size: int, steps: int) -> Report:
    problem = LeastSquares(size, skew=0.5, rows=8)
    links = Links(latency=1e-4, delay=exponential(1e-3))
    compute = ComputeModel(0.05, lognormal(1.0, 0.1), slow={size // 3: STRAGGLER} if algorithm == "adpsgd" else {})
    rate = 0.2
    report = simulate(
        algorithm,
        problem,
        size=size,
        steps=steps,
        departures={size // 3: 1},
        topology=topology,
        links=links,
        compute=compute,
        learning_rate=rate,
    )
    assert problem.loss(report.mean) < 0.5 * problem.loss(np.zeros(8))
    return report


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("algorithm", "topology"), [("dpsgd", "one-peer-exponential"), ("adpsgd", "hypercube"), ("sgp", "exponential")]
)
def test_a_thousand_and_twenty_four_workers(algorithm: str, topology: str) -> None:
    report = run_large(algorithm, topology, 1024, 30)
    assert report.steps.sum() == 1023 * 30 + 1
    assert report.consensus_distance < 1.0


def test_adpsgd_at_1024_workers_is_not_held_up_by_one_that_is_10000_times_slower() -> None:
    report = run_large("adpsgd", "hypercube", 1024, 10)
    fast = np.arange(1024) != 341
    assert np.all(report.waited == 0)
    assert report.departed_at[fast].max() < 1.0
