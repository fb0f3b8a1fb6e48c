"""Each synchronous algorithm against a plain NumPy transcription of its equations, iterate by iterate, to 1e-12.

The exchange of x(k) begins after the k-th update, so the first update mixes nothing: the transcriptions say W(-1) = I.
"""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import LeastSquares, simulate
from hvd_gossip.topology.base import Topology
from hvd_gossip.transport.simulated_links import Links, uniform

STEPS, RATE = 12, 0.05
SLOW_LINKS = Links(latency=0.001, bandwidth=1e6, delay=uniform(0.0, 0.2))


class Different(LeastSquares):
    """Least squares whose workers begin at different places."""

    def initial(self, rank: int) -> np.ndarray:
        return np.random.default_rng(rank).standard_normal((self.inputs.shape[2],))


def problem(size: int) -> Different:
    return Different(size, dimension=6, skew=1.0)


def gradients(task: LeastSquares, x: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([task.gradient(rank, x[rank], rng) for rank in range(len(x))])


def start(task: LeastSquares, size: int) -> np.ndarray:
    return np.stack([task.initial(rank) for rank in range(size)])


def mixing(topology: Topology, round_: int) -> np.ndarray:
    return topology.matrix(round_) if round_ >= 0 else np.eye(topology.size)


def run(algorithm: str, task: LeastSquares, size: int, topology: object = "auto", **settings: object) -> np.ndarray:
    options = {"size": size, "topology": topology, "links": SLOW_LINKS, "learning_rate": RATE, "chunk_bytes": 16}
    report = simulate(algorithm, task, steps=STEPS, settings=MixingSettings(**settings), **options)  # type: ignore[arg-type]
    return report.parameters


@pytest.mark.parametrize("size", [2, 4, 6])
def test_dpsgd_sequential_on_the_complete_graph_is_allreduce(size: int) -> None:
    """The same iterates, from the same start, as the exact average of all gradients."""
    task = LeastSquares(size, dimension=6, skew=1.0)
    gossip = run("dpsgd", task, size, "complete", mixing_order="sequential")
    np.testing.assert_allclose(gossip, run("allreduce", task, size), rtol=0, atol=1e-12)
    x = np.zeros(6)
    for _ in range(STEPS):
        x = x - RATE * gradients(task, np.tile(x, (size, 1))).mean(axis=0)
    np.testing.assert_allclose(gossip, np.tile(x, (size, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("wire", ["float16", "bfloat16"])
@pytest.mark.parametrize("algorithm", ["dpsgd", "adpsgd", "sgp"])
def test_a_narrow_wire_moves_no_mass(algorithm: str, wire: str) -> None:
    """Quantized messages change who has what, not the sum: with no gradient the mean stands still to rounding."""
    size, task = 6, problem(6)
    values = start(task, size)
    from hvd_gossip.simulate import Still

    report = simulate(
        algorithm, Still(values.copy()), size=size, steps=40, settings=MixingSettings(wire_dtype=wire), chunk_bytes=16
    )
    np.testing.assert_allclose(report.mean, values.mean(axis=0), rtol=0, atol=1e-13)
    assert report.consensus_distance < 0.02
