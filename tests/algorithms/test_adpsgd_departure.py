"""AD-PSGD's departures where MPI buffers nothing, not even its tokens."""

import math

import numpy as np
import pytest

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, Simulation, Still, simulate
from hvd_gossip.transport.simulated_links import Links, exponential


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [2, 5])
def test_both_ends_may_leave_at_once_though_nothing_is_buffered(size: int, seed: int) -> None:
    """The listener does not wait for its own farewell: the other end may be doing the same."""
    values = np.random.default_rng(seed).standard_normal((size, 2))
    report = simulate(
        "adpsgd",
        Still(values.copy()),
        size=size,
        steps=3,
        seed=seed,
        eager_limit=0,
        links=Links(delay=exponential(0.05)),
        compute=ComputeModel(0.05, exponential(1.0), seed=seed),
        settings=MixingSettings(wait_timeout=math.inf),
    )
    assert report.steps.tolist() == [3] * size
    np.testing.assert_allclose(report.mean, values.mean(axis=0), atol=1e-12)


def test_who_initiates_leaves_at_once_and_who_answers_when_all_who_could_ask_know() -> None:
    latency, mean = 1.0, 0.05
    simulation = Simulation(
        "adpsgd",
        Still(np.zeros((6, 2))),
        size=6,
        links=Links(latency=latency),
        compute=ComputeModel(mean),
        settings=MixingSettings(mixing_period=100),
    )
    initiators, _ = simulation.topology.pairing
    report = simulation.run(steps=3)
    took = report.departed_at - report.finished_at
    asks = np.isin(np.arange(6), list(initiators))
    assert 0 < asks.sum() < 6
    np.testing.assert_allclose(took[asks], 0.0, atol=1e-9)
    np.testing.assert_allclose(took[~asks], latency, rtol=1e-3)


def test_a_responder_leaves_though_an_initiator_that_has_not_said_goodbye_is_dead() -> None:
    simulation = Simulation("adpsgd", Still(np.zeros((6, 2))), size=6, compute=ComputeModel(0.05))
    initiators, _ = simulation.topology.pairing
    dead = max(initiators)
    report = simulation.run(steps=3, deaths={dead: 0.08})
    assert np.all(report.steps[np.arange(6) != dead] == 3)
    assert report.departed_at[np.arange(6) != dead].min() > 0
