"""Overlap SGP: its equations at every tau, what it waits for, and how many rounds are under way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.algorithms.lanes import BUFFER_BUDGET, LANES, fitting_chunk_bytes
from hvd_gossip.algorithms.osgp import DEPTH, OSGP
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.errors import TopologyError
from hvd_gossip.simulate import ComputeModel, LeastSquares, Report, Simulation, simulate
from hvd_gossip.testing import Row, Run, random_directed_rounds
from hvd_gossip.testing.training import RATE, STEPS, problem, simulation
from hvd_gossip.topology import make_topology
from hvd_gossip.transport.simulated_links import Links
from tests.algorithms import equations


@pytest.mark.parametrize("settings", [{}, {"mixing_period": 2}, {"global_average_every": 5}], ids=str)
@pytest.mark.parametrize("tau", [1, 2, 3, 9])
def test_iterates_are_the_paper_s(tau: int, settings: dict[str, int]) -> None:
    row, size = Row("osgp", {"tau": tau, **settings}), 5
    for topology in ("auto", "exponential", random_directed_rounds(size, tau)):
        simulated = simulation(row, problem(size), size, topology)
        expected = equations.osgp(Run(problem(size), simulated.topology, STEPS, RATE, row.settings))
        np.testing.assert_allclose(simulated.run(steps=STEPS).parameters, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("settings", [{}, {"mixing_period": 3}, {"global_average_every": 4}], ids=str)
def test_with_tau_1_it_is_sgp_in_its_order_overlap(settings: dict[str, int]) -> None:
    rounds = random_directed_rounds(6, 1)
    osgp, sgp = (simulation(Row(name, settings), problem(6), 6, rounds).run(steps=STEPS) for name in ("osgp", "sgp"))
    np.testing.assert_allclose(osgp.parameters, sgp.parameters, rtol=0, atol=1e-12)


def far_apart(tau: int, **options: Any) -> Report:
    """A message takes 0.13 s, a step 0.05 s."""
    options = {"links": Links(latency=0.13), "compute": ComputeModel(0.05), "steps": 20, **options}
    return simulate("osgp", LeastSquares(4), size=4, settings=MixingSettings(tau=tau), **options)


def test_a_step_waits_only_for_what_was_sent_tau_steps_ago() -> None:
    """Token and chunk one after the other take 0.26 s: five steps and a bit."""
    waited = [float(far_apart(tau).waited.max()) for tau in (1, 3, 6)]
    assert waited[0] > 19 * 0.2
    assert 0 < waited[1] < waited[0] / 2
    assert waited[2] == 0.0


def test_more_rounds_than_channels_are_under_way_one_after_the_other() -> None:
    assert DEPTH < 12
    report = far_apart(12, links=Links(latency=0.25))
    expected = equations.osgp(Run(LeastSquares(4), make_topology("one-peer-exponential", 4), 20, 0.1, {"tau": 12}))
    np.testing.assert_allclose(report.parameters, expected, rtol=1e-9)


def test_mass_is_whole_when_what_is_under_way_is_counted() -> None:
    """Between two steps: workers, and flights, each with what left its worker until its round is complete."""
    simulated = Simulation(
        "osgp",
        problem(4),
        size=4,
        topology="ring",
        settings=MixingSettings(tau=3),
        links=Links(latency=0.2),
        learning_rate=0.0,
        chunk_bytes=16,
    )
    simulated.run(time=0.26)
    total, weight = simulated.mass()
    start = np.stack([problem(4).initial(rank) for rank in range(4)])
    np.testing.assert_allclose(total, start.sum(axis=0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(weight, 4.0, rtol=1e-13)


def test_buffers_of_all_rounds_under_way_stay_within_the_budget() -> None:
    assert [OSGP.rounds_under_way(MixingSettings(tau=tau)) for tau in (1, 3, 100)] == [1, 3, DEPTH]
    chunk = fitting_chunk_bytes(1 << 30, 4 * DEPTH)
    assert chunk * LANES * 4 * DEPTH <= BUFFER_BUDGET


def test_all_ranks_cut_their_parameters_alike() -> None:
    """A star's centre meets more neighbours at once than its other ranks; the chunks must be the same."""
    assert make_topology("star", 16).largest_degree() == 15
    assert make_topology("one-peer-exponential", 16).largest_degree() == 1


def test_who_would_give_everything_away_is_told_so() -> None:
    rotation = [np.array([[0.0, 0.5], [1.0, 0.5]])]
    with pytest.raises(TopologyError, match=r"rank 0 keeps nothing of its own in round 0 .*laziness"):
        simulate("osgp", LeastSquares(2), size=2, steps=1, topology=rotation)
