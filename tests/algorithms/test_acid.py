"""A2CiD2: what it has beyond AD-PSGD, whose own tests are those of `test_properties_simulated.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.algorithms.acid import ACID, momentum
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, LeastSquares, Report, Simulation, Still, simulate
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing import random_graph
from hvd_gossip.testing.selection import few
from hvd_gossip.testing.worlds import STRAGGLER, Drift, Scene, departures, scenes, within
from hvd_gossip.topology import fit_topology, make_topology
from hvd_gossip.transport.simulated_links import Links, lognormal

STEPS = 8
INSTANT = Links(latency=0.0, bandwidth=math.inf)


def ring(algorithm: str, size: int, steps: int, **settings: Any) -> Report:
    """Nothing but mixing, on a ring, from normally distributed values; seeded."""
    start = np.random.default_rng(size).standard_normal((size, 3))
    compute = ComputeModel(0.05, lognormal(1.0, 0.2))
    options = {"topology": "ring", "links": Links(latency=1e-3), "compute": compute}
    return simulate(algorithm, Still(start), size=size, steps=steps, settings=MixingSettings(**settings), **options)


def test_the_papers_parameters_on_a_ring() -> None:
    chi_1, chi_2 = 1 / (1 - math.cos(2 * math.pi / 16)), 15 / 16
    eta, alpha = momentum(fit_topology(make_topology("ring", 16), "bipartite"), 1, 1.0)
    assert eta == pytest.approx(1 / (2 * math.sqrt(chi_1 * chi_2)))
    assert alpha == pytest.approx(0.5 * math.sqrt(chi_1 / chi_2))


@pytest.mark.parametrize("name", ["complete", "hypercube"])
def test_on_a_well_connected_graph_the_companion_is_pulled_hardly_more(name: str) -> None:
    _, alpha = momentum(fit_topology(make_topology(name, 8), "bipartite"), 1, 1.0)
    assert 0.5 <= alpha < 0.9


def test_exchanges_half_as_often_flow_half_as_fast() -> None:
    topology = fit_topology(make_topology("ring", 8), "bipartite")
    (eta, alpha), (slow, same) = momentum(topology, 1, 1.0), momentum(topology, 2, 1.0)
    assert (slow, same) == pytest.approx((eta / 2, alpha))


@few
@given(scene=scenes(), leaving=departures(STEPS))
def test_without_momentum_it_is_adpsgd_to_the_last_bit(scene: Scene, leaving: dict[int, int]) -> None:
    graph, leaving = random_graph(scene.size, scene.seed), within(leaving, scene.size)

    def run(algorithm: str, **settings: Any) -> Vector:
        problem = LeastSquares(scene.size, skew=1.0, seed=scene.seed)
        simulation = scene.simulation(algorithm, problem, topology=graph, **settings)
        return simulation.run(steps=STEPS, departures=leaving).parameters

    np.testing.assert_array_equal(run("acid", acid_momentum=0.0), run("adpsgd"))


@pytest.mark.parametrize(("size", "times"), [(32, 20.0), (64, 2.5)])
def test_consensus_on_a_large_ring_comes_faster_than_adpsgd_s(size: int, times: float) -> None:
    """After 100 steps of 32, 0.0014 against 0.14; of 64, 0.06 against 0.29 (after 300, 4e-5 against 0.16)."""
    plain, accelerated = (ring(algorithm, size, 100).consensus_distance for algorithm in ("adpsgd", "acid"))
    assert accelerated * times < plain


def test_on_a_ring_workers_whose_data_differ_stay_nearer_together() -> None:
    def distance(algorithm: str) -> float:
        compute = ComputeModel(0.05, lognormal(1.0, 0.2))
        problem = LeastSquares(32, skew=1.0)
        report = simulate(algorithm, problem, size=32, steps=150, topology="ring", compute=compute, learning_rate=0.05)
        return report.consensus_distance

    assert distance("acid") * 1.2 < distance("adpsgd")


@few
@given(scene=scenes(), leaving=departures(STEPS), topology=st.sampled_from(["complete", "ring", "star"]))
def test_it_never_waits_and_never_deadlocks(scene: Scene, leaving: dict[int, int], topology: str) -> None:
    """One worker of these scenes is up to 10,000 times slower than the others."""
    leaving = within(leaving, scene.size)
    report = scene.simulation("acid", LeastSquares(scene.size), topology=topology).run(STEPS, departures=leaving)
    assert report.steps.tolist() == [leaving.get(rank, STEPS) for rank in range(scene.size)]
    assert np.all(report.waited == 0)


@pytest.mark.parametrize("straggler", [0, 1])
def test_the_others_leave_without_a_straggler(straggler: int) -> None:
    compute = ComputeModel(0.05, lognormal(1.0, 0.1), slow={straggler: STRAGGLER})
    report = simulate("acid", LeastSquares(8), size=8, steps=20, compute=compute)
    fast = np.arange(8) != straggler
    assert report.departed_at[fast].max() < 1.5 < 1000 < report.departed_at[straggler]


@few
@given(scene=scenes(slowest=100.0), steps=st.integers(1, 12))
def test_half_of_both_sums_changes_by_the_updates_alone_in_the_middle_of_a_run(scene: Scene, steps: int) -> None:
    """Not only when all have settled: whatever the workers' clocks, x + c + d/2 is what exchanges move about."""
    problem = Drift(scene.size, seed=scene.seed)
    simulation = scene.simulation("acid", problem, topology=random_graph(scene.size, scene.seed), consensus_every=steps)
    seen = [companions(simulation)]
    report = simulation.run(steps=steps + 1)
    assert not np.any(seen[0])
    mean = problem.sum_after(np.full(scene.size, steps), 0.1) / scene.size
    for consensus in report.consensus:
        np.testing.assert_allclose(consensus[0], mean, rtol=0, atol=1e-12)


def test_with_one_clock_the_sum_of_the_companions_differences_is_zero() -> None:
    """Messages take no time, steps are at one moment: the paper's world, where the sum of x changes by the updates alone."""
    start = np.random.default_rng(0).standard_normal((8, 3))
    simulation = Simulation(
        "acid", Still(start.copy()), size=8, topology="ring", links=INSTANT, compute=ComputeModel(0.05)
    )
    tasks = [worker.endpoint.spawn(some_steps(worker.algorithm, worker.endpoint, 8)) for worker in simulation.workers]
    simulation.world.run(tasks)
    apart = companions(simulation)
    assert np.abs(apart).max() > 0.01, "somebody's companion is elsewhere"
    np.testing.assert_allclose(apart.sum(axis=0), 0.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(simulation_sum(simulation), start.sum(axis=0), rtol=0, atol=1e-12)


async def some_steps(algorithm: Any, endpoint: Any, steps: int) -> None:
    algorithm.start()
    for _ in range(steps):
        await endpoint.sleep(0.05)
        for wait in algorithm.step(lambda: None):
            await wait()
    await endpoint.sleep(0.01)
    for _ in algorithm.step(lambda: None):
        raise AssertionError("acid waits for nobody")


def companions(simulation: Simulation) -> Vector:
    return np.stack([worker.algorithm.state_dict()["companion"][0] for worker in simulation.workers])


def simulation_sum(simulation: Simulation) -> Vector:
    total: Vector = sum(worker.x + worker.replica.corrections[0] for worker in simulation.workers)
    return total


def test_a_checkpoint_has_the_companions() -> None:
    simulation = Simulation("acid", Still(np.zeros((2, 3))), size=2)
    algorithm = simulation.workers[0].algorithm
    algorithm.load_state_dict({"companion": [np.array([1.0, 2.0, 4.0])]})
    np.testing.assert_array_equal(algorithm.state_dict()["companion"][0], [1.0, 2.0, 4.0])
    algorithm.settle()
    np.testing.assert_array_equal(simulation.workers[0].x, [0.5, 1.0, 2.0])
    with pytest.raises(ValueError, match="companions of shapes"):
        algorithm.load_state_dict({"companion": [np.zeros(4)]})


def test_it_is_registered_as_asynchronous() -> None:
    assert not ACID.synchronous
    assert ACID.memory == "2 x"
