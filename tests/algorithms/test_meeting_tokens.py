"""Tokens of synchronous algorithms where MPI buffers nothing, and to workers that are gone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import ComputeModel, Simulation, Still
from hvd_gossip.transport.endpoint import ALGORITHM_BASE
from hvd_gossip.transport.simulated_links import Links, exponential

ALGORITHMS = ["dpsgd", "sgp"]


def simulation(algorithm: str, seed: int = 0, eager_limit: float = 0) -> Simulation:
    values = np.random.default_rng(seed).standard_normal((4, 8))
    return Simulation(
        algorithm,
        Still(values),
        size=4,
        topology="complete",
        chunk_bytes=8,
        eager_limit=eager_limit,
        seed=seed,
        settings=MixingSettings(wait_timeout=math.inf),
        links=Links(delay=exponential(0.05)),
        compute=ComputeModel(0.05, exponential(1.0), seed=seed),
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", range(10))
def test_a_token_that_nobody_receives_any_more_holds_nobody_up(algorithm: str, seed: int) -> None:
    """A departure crosses the tokens of workers that do not know of it yet; nothing is buffered."""
    run = simulation(algorithm, seed)
    before, _ = run.mass()
    report = run.run(steps=6, departures={1: 2, 2: 4})
    assert report.steps.tolist() == [6, 2, 4, 6]
    np.testing.assert_allclose(run.mass()[0], before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_who_is_known_to_be_gone_is_told_nothing(algorithm: str) -> None:
    run = simulation(algorithm, eager_limit=math.inf)
    run.run(steps=40, departures={1: 2})
    unread = 0
    while run.world.endpoints[1].recv_any(ALGORITHM_BASE).done():
        unread += 1
    assert unread <= 6, "each of three peers may have joined an exchange, and departed, before it knew"


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp", "d2"])
def test_a_departure_is_told_to_whom_one_may_meet_and_to_nobody_else(algorithm: str) -> None:
    """Everybody telling everybody would be 64 * 63 tokens."""
    run = Simulation(algorithm, Still(np.zeros((64, 8))), size=64, topology="ring")
    assert run.run(steps=3).events < 64 * 30
