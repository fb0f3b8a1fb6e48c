"""Join, where an algorithm has more to show than the conformance list asks of all."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.simulate import ComputeModel, Still, simulate
from hvd_gossip.testing import Row
from hvd_gossip.testing.joining import run
from hvd_gossip.testing.worlds import Scene
from hvd_gossip.topology import make_topology
from hvd_gossip.transport.simulated_links import Links, exponential


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp"])
def test_the_exact_mean_leaves_out_who_has_joined(algorithm: str) -> None:
    values = np.arange(12.0).reshape(4, 3)
    report = simulate(
        algorithm, Still(values.copy()), size=4, steps=10**9, departures={0: 0, 1: 4, 2: 4, 3: 4},
        joins={0: [0], 1: [4], 2: [4], 3: [4]}, consensus_every=4, topology="complete",
    )  # fmt: skip
    assert report.consensus[0] == []
    for rank in (1, 2, 3):
        np.testing.assert_allclose(report.consensus[rank][0], values[1:].mean(axis=0), atol=1e-12)
    np.testing.assert_array_equal(report.parameters[0], values[0])


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp"])
def test_who_has_joined_takes_part_again_in_the_next_epoch(algorithm: str) -> None:
    """On the complete graph one exchange of all workers brings consensus; in the first epoch rank 0 takes no part."""
    values = np.random.default_rng(0).standard_normal((5, 3))
    plan = [[0, 2], [3, 2], [1, 2], [5, 2], [2, 2]]
    scene = Scene(5, 1, ComputeModel(), Links())
    _, report = run(Row(algorithm), Still(values), plan, scene, topology="complete")
    np.testing.assert_allclose(report.parameters, np.tile(values.mean(axis=0), (5, 1)), rtol=0, atol=1e-12)


def test_adpsgd_s_joined_workers_answer_their_neighbours() -> None:
    """One responder has no data; its neighbours' models reach it all the same. Nobody waits."""
    values = np.random.default_rng(0).standard_normal((4, 3))
    mean = values.mean(axis=0)
    initiators, _ = make_topology("complete", 4).pairs()
    idle = next(rank for rank in range(4) if rank not in initiators)
    plan = [[0 if rank == idle else 60] for rank in range(4)]
    scene = Scene(4, 1, ComputeModel(0.05, exponential(1.0)), Links())
    simulation, report = run(Row("adpsgd"), Still(values.copy()), plan, scene, topology="complete")
    assert simulation.workers[idle].counters.exchanges > 10
    assert np.abs(report.parameters[idle] - mean).max() < 0.3 * np.abs(values[idle] - mean).max()
    assert np.all(report.waited == 0)


def test_an_initiator_that_has_joined_starts_no_exchange() -> None:
    """Its partners' pace would make it go on."""
    (initiator,), _ = make_topology("complete", 2).pairs()
    plan = [[2 if rank == initiator else 200] for rank in range(2)]
    scene = Scene(2, 1, ComputeModel(0.05), Links())
    simulation, _ = run(Row("adpsgd"), Still(np.zeros((2, 3))), plan, scene)
    assert 0 < simulation.workers[0].counters.exchanges < 10
