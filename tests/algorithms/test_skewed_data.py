"""What D2, gradient tracking and quasi-global momentum are for, and what is theirs alone; in the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.algorithms.flows import EdgeMemory
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.simulate import ComputeModel, LeastSquares, Simulation, Still, simulate
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing import Row
from hvd_gossip.testing.training import test_iterates_are_those_of_the_paper_s_equations as check_iterates
from hvd_gossip.transport.simulated_links import Links
from tests.algorithms import equations_skewed

REMEMBERING = ["d2", "gradient-tracking"]
QG = {"iterates": equations_skewed.qg_dsgdm, "keeps_mass": False, "is_wrapped_alone": False}


def train(algorithm: str, size: int = 6, steps: int = 400, **options: Any) -> tuple[float, Vector]:
    """Distance of the mean and of the worst worker from the optimum of very different data."""
    problem = LeastSquares(size, skew=3.0)
    report = simulate(algorithm, problem, size=size, steps=steps, topology="ring", learning_rate=0.1, **options)
    return float(np.abs(report.parameters - problem.optimum).max()), report.parameters


@pytest.mark.parametrize("algorithm", REMEMBERING)
def test_data_that_differ_leave_no_bias(algorithm: str) -> None:
    """D-PSGD stays away from the optimum, by more the more the data differ; these come to it."""
    assert train("dpsgd")[0] > 0.1
    assert train(algorithm)[0] < 1e-6


@pytest.mark.parametrize("algorithm", REMEMBERING)
def test_who_leaves_takes_no_memory_along(algorithm: str) -> None:
    """The others come to the optimum of their own data: with the sum of a memory alone they would drift away for ever."""
    size, gone = 6, 2
    problem = LeastSquares(size, skew=3.0)
    report = simulate(
        algorithm, problem, size=size, steps=800, departures={gone: 100}, topology="complete", learning_rate=0.1
    )
    stayed = np.arange(size) != gone
    x = report.parameters[stayed]
    rng = np.random.default_rng(0)
    gradients = [problem.gradient(rank, x[0], rng) for rank in range(size) if rank != gone]
    assert np.abs(x - x[0]).max() < 1e-6
    assert np.abs(np.mean(gradients, axis=0)).max() < 1e-6 < np.abs(gradients).max()


def remembered(simulation: Simulation) -> dict[tuple[int, int], Vector]:
    """What each end of each edge remembers."""
    found = {}
    for worker in simulation.workers:
        assert isinstance(worker.algorithm, EdgeMemory)
        for peer, (carried,) in worker.algorithm.state_dict()["carried"].items():
            found[worker.rank, peer] = carried
    return found


@pytest.mark.parametrize("algorithm", REMEMBERING)
def test_both_ends_of_an_edge_remember_the_same_to_the_last_bit(algorithm: str) -> None:
    simulation = Simulation(algorithm, LeastSquares(5, skew=1.0), size=5, topology="ring", chunk_bytes=16)
    simulation.run(steps=20)
    ends = remembered(simulation)
    assert len(ends) == 10
    for (rank, peer), carried in ends.items():
        np.testing.assert_array_equal(carried, -ends[peer, rank])
        assert np.abs(carried).max() > 0


@pytest.mark.parametrize("algorithm", REMEMBERING)
def test_one_end_that_is_restored_alone_makes_the_other_forget(algorithm: str) -> None:
    first = Simulation(algorithm, LeastSquares(2, skew=1.0), size=2, topology="ring")
    first.run(steps=6)
    second = Simulation(algorithm, LeastSquares(2, skew=1.0), size=2, topology="ring")
    second.workers[0].algorithm.load_state_dict(first.workers[0].algorithm.state_dict())
    second.run(steps=5)
    ends = remembered(second)
    np.testing.assert_array_equal(ends[0, 1], -ends[1, 0])


def test_a_state_of_another_number_of_workers_is_not_taken_up() -> None:
    """Whoever has a rank then is somebody else."""
    first = Simulation("d2", LeastSquares(3, skew=1.0), size=3, topology="complete")
    first.run(steps=4)
    second = Simulation("d2", LeastSquares(2, skew=1.0), size=2, topology="complete")
    second.workers[0].algorithm.load_state_dict(first.workers[0].algorithm.state_dict())
    assert not np.any(remembered(second)[0, 1])


def test_a_state_of_other_parameters_is_refused() -> None:
    first = Simulation("d2", LeastSquares(2, dimension=3), size=2)
    second = Simulation("d2", LeastSquares(2, dimension=4), size=2)
    with pytest.raises(ValueError, match=r"what the edge to rank 1 carried.* do not fit parameters"):
        second.workers[0].algorithm.load_state_dict(first.workers[0].algorithm.state_dict())


@pytest.mark.parametrize("algorithm", REMEMBERING)
def test_a_graph_that_changes_is_refused_and_so_is_a_period(algorithm: str) -> None:
    with pytest.raises(TopologyError, match="changes from round to round"):
        simulate(algorithm, Still(np.zeros((4, 1))), size=4, steps=1, topology="one-peer-exponential")
    with pytest.raises(ConfigError, match="mixing_period=2 has no meaning"):
        simulate(algorithm, Still(np.zeros((4, 1))), size=4, steps=1, settings=MixingSettings(mixing_period=2))


def test_d2_s_topology_says_that_it_is_lazy() -> None:
    report = simulate("d2", Still(np.zeros((4, 1))), size=4, steps=1, topology="ring")
    assert report.topology == "ring (laziness 0.5)"
    assert simulate("d2", Still(np.zeros((4, 1))), size=4, steps=1, topology="complete").topology == "complete"


def test_tracking_sends_two_vectors() -> None:
    """And they travel side by side: one round's latency, not two."""
    links, compute = Links(latency=0.5), ComputeModel(0.01)
    options: dict[str, Any] = {"size": 2, "steps": 10, "topology": "ring", "links": links, "compute": compute}
    options["settings"] = MixingSettings(mixing_order="sequential")
    plain = simulate("dpsgd", Still(np.zeros((2, 100))), **options)
    tracked = simulate("gradient-tracking", Still(np.zeros((2, 100))), **options)
    assert [counters.bytes_sent for counters in plain.counters] == [8000, 8000]
    assert [counters.bytes_sent for counters in tracked.counters] == [16000, 16000]
    assert tracked.finished_at.max() < 1.1 * plain.finished_at.max()


@pytest.mark.parametrize(
    "settings",
    [{"qg_nesterov": True, "qg_momentum": 0.7}, {"qg_nesterov": True, "mixing_period": 3}, {"global_average_every": 4}],
    ids=str,
)
def test_quasi_global_momentum_in_all_its_forms(settings: dict[str, Any]) -> None:
    check_iterates(Row("qg-dsgdm", settings, **QG), 5)


def test_quasi_global_momentum_of_zero_is_dpsgd() -> None:
    options: dict[str, Any] = {"size": 5, "steps": 20, "topology": "ring", "learning_rate": 0.1}
    problem = LeastSquares(5, skew=1.0)
    plain = simulate("dpsgd", problem, settings=MixingSettings(mixing_order="sequential"), **options)
    without = simulate("qg-dsgdm", problem, settings=MixingSettings(qg_momentum=0.0), **options)
    np.testing.assert_allclose(without.parameters, plain.parameters, rtol=0, atol=1e-12)


def test_quasi_global_momentum_speeds_up() -> None:
    """Its updates add up to 1 / (1 - beta) times those of plain SGD."""
    options: dict[str, Any] = {"size": 4, "steps": 60, "topology": "ring", "learning_rate": 0.01}
    problem = LeastSquares(4, skew=0.1)
    losses = [problem.loss(simulate(name, problem, **options).mean) for name in ("dpsgd", "qg-dsgdm")]
    assert losses[1] < 0.5 * losses[0]
