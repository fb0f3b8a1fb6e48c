"""ChocoSGD beyond the list of rows: every compressor, its default step, its memory, and what it costs in bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.algorithms.choco import Choco
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.compressors import COMPRESSORS, make_compressor
from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.simulate import Simulation, Still
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing import Run
from hvd_gossip.testing.training import problem
from hvd_gossip.transport.simulated_links import Links
from tests.algorithms.equations import choco_overlap, choco_sequential

compressors = pytest.mark.parametrize("compressor", COMPRESSORS)
SEQUENTIAL = {"mixing_order": "sequential"}


def simulation(task: Any, size: int, topology: str = "ring", **options: Any) -> Simulation:
    settings = MixingSettings(**options.pop("settings", {}))
    return Simulation("choco", task, size=size, topology=topology, settings=settings, chunk_bytes=16, **options)


def knowledge(choco: Any) -> dict[int, Vector]:
    """Whose parameters a worker knows, and how it knows them."""
    return {peer: companion.flats[0].copy() for peer, companion in choco._remembered.items()}


@compressors
def test_iterates_are_those_of_algorithm_2_with_every_compressor(compressor: str) -> None:
    settings = {"compressor": compressor, "consensus_step": 0.3, "compression_ratio": 0.5, **SEQUENTIAL}
    simulated = simulation(problem(5), 5, settings=settings, learning_rate=0.05)
    expected = choco_sequential(Run(problem(5), simulated.topology, 12, 0.05, settings))
    np.testing.assert_allclose(simulated.run(steps=12).parameters, expected, rtol=0, atol=1e-11)


def test_iterates_with_exact_averages() -> None:
    """All know each other's parameters after one, and go on from there."""
    settings = {"compressor": "qsgd-8", "consensus_step": 0.9, "global_average_every": 5, "mixing_order": "overlap"}
    simulated = simulation(problem(5), 5, settings=settings, learning_rate=0.05)
    expected = choco_overlap(Run(problem(5), simulated.topology, 12, 0.05, settings))
    np.testing.assert_allclose(simulated.run(steps=12).parameters, expected, rtol=0, atol=1e-11)


def test_without_compression_and_with_step_one_it_is_dpsgd() -> None:
    for order in ("overlap", "sequential"):
        settings = {"compressor": "identity", "consensus_step": 1.0, "mixing_order": order}
        mine = simulation(problem(6), 6, settings=settings).run(steps=10).parameters
        dpsgd = Simulation(
            "dpsgd", problem(6), size=6, topology="ring", settings=MixingSettings(mixing_order=order)
        ).run(steps=10)
        np.testing.assert_allclose(mine, dpsgd.parameters, rtol=0, atol=1e-12)


@compressors
def test_default_step_brings_consensus(compressor: str) -> None:
    """The default gamma, on 96 parameters in chunks of 32: a tenth of the elements, or a few bits each."""
    start = np.random.default_rng(3).standard_normal((6, 96))
    settings = MixingSettings(compressor=compressor)
    still = Simulation("choco", Still(start.copy()), size=6, topology="ring", settings=settings, chunk_bytes=256)
    report = still.run(steps=150)
    np.testing.assert_allclose(report.mean, start.mean(axis=0), rtol=0, atol=1e-12)
    assert report.consensus_distance < 0.05 * np.sqrt(96)


def test_two_ends_of_an_edge_know_the_same_bits_of_each_other() -> None:
    simulated = simulation(problem(5, dtype=np.float32), 5, settings={"compressor": "qsgd-4"})
    simulated.run(steps=9, departures={3: 4})
    known = [knowledge(worker.algorithm) for worker in simulated.workers]
    for rank, others in enumerate(known):
        assert set(others) == {rank, (rank - 1) % 5, (rank + 1) % 5}
        for peer, copy in others.items():
            if 3 not in (rank, peer):
                np.testing.assert_array_equal(copy, known[peer][peer])


def test_after_an_exact_mean_all_remember_it_and_after_a_bare_pause_nobody_anything() -> None:
    simulated = simulation(Still(np.random.default_rng(0).standard_normal((4, 5))), 4, consensus_every=3)
    report = simulated.run(steps=3)
    for worker in simulated.workers:
        for copy in knowledge(worker.algorithm).values():
            np.testing.assert_array_equal(copy, report.consensus[0][0])
        assert worker.algorithm.compressor.name == "top-k"  # type: ignore[attr-defined]
    simulated = simulation(Still(np.ones((2, 5))), 2, joins={0: [3, 5], 1: [3, 5]})
    simulated.run(steps=5)
    for worker in simulated.workers:
        assert not any(copy.any() for copy in knowledge(worker.algorithm).values())
        assert worker.algorithm.compressor.name == "identity"  # type: ignore[attr-defined]


def test_bytes_are_the_compressor_s_after_the_first_exchange() -> None:
    report = simulation(Still(np.ones((2, 64))), 2, settings={"compressor": "top-k"}).run(steps=5)
    assert report.counters[0].bytes_sent == 64 * 8 + 4 * 32 * make_compressor("top-k", 0.1).nbytes(2, np.float64)


def test_consensus_samples_are_distances_of_the_public_copies() -> None:
    values = np.array([[0.0, 0.0], [3.0, 4.0]])
    simulated = simulation(Still(values), 2, settings={"consensus_sample_every": 2, "consensus_step": 1e-9})
    simulated.run(steps=2)
    assert simulated.workers[0].counters.consensus_sample == pytest.approx(5 / np.sqrt(2), rel=1e-6)


def test_a_worker_that_leaves_is_left_out_on_both_ends_and_the_mean_of_the_others_stands_still() -> None:
    start = np.random.default_rng(1).standard_normal((5, 4))
    simulated = simulation(Still(start.copy()), 5, settings={"consensus_step": 0.4})
    report = simulated.run(steps=120, departures={2: 5})
    np.testing.assert_allclose(report.parameters.sum(axis=0), start.sum(axis=0), rtol=0, atol=1e-12)
    stayed = report.parameters[[0, 1, 3, 4]]
    np.testing.assert_allclose(stayed, np.tile(stayed.mean(axis=0), (4, 1)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["random-matching", "bipartite", "one-peer-exponential", "base-2"])
def test_topology_that_changes_is_an_error(name: str) -> None:
    with pytest.raises(TopologyError, match="changes from round to round; this algorithm remembers"):
        simulation(Still(np.ones((8, 2))), 8, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"consensus_step": 1.5}, "consensus_step must be at most 1"),
        ({"compression_ratio": 1.5}, "compression_ratio must be above 0 and at most 1"),
        ({"compressor": "zip"}, "unknown compressor 'zip'"),
        ({"wire_dtype": "float16"}, "wire_dtype='float16' has no meaning with algorithm 'choco'"),
    ],
)
def test_setting_out_of_range_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Choco.validate(MixingSettings(**settings))


def test_checkpoint_of_other_neighbours_is_refused() -> None:
    states = [worker.algorithm.state_dict() for worker in simulation(Still(np.ones((5, 3))), 5).workers]
    other = simulation(Still(np.ones((5, 3))), 5).workers[1].algorithm
    with pytest.raises(ValueError, match=r"remembers of ranks 1, 2, 3 does not fit rank 1 .* remembers ranks 0, 1, 2"):
        other.load_state_dict(states[2])
    shorter = simulation(Still(np.ones((5, 2))), 5, links=Links()).workers[1].algorithm
    with pytest.raises(ValueError, match="values remembered of rank"):
        shorter.load_state_dict(states[1])
