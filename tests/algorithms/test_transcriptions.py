"""Each synchronous algorithm against a plain NumPy transcription of its equations, iterate by iterate, to 1e-12.

The exchange of x(k) begins after the k-th update, so the first update mixes nothing: the transcriptions say W(-1) = I.
"""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.simulate import LeastSquares, simulate
from hvd_gossip.topology import make_topology
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


@pytest.mark.parametrize("size", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("name", ["ring", "complete", "random-matching"])
def test_dpsgd_overlapped(size: int, name: str) -> None:
    """x(k+1) = W x(k) + u(x(k)); the last exchange is folded in when the worker departs."""
    task, topology = problem(size), make_topology(name, size)
    x = start(task, size)
    for step in range(STEPS):
        x = mixing(topology, step - 1) @ x - RATE * gradients(task, x)
    x = mixing(topology, STEPS - 1) @ x
    np.testing.assert_allclose(run("dpsgd", task, size, name), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_dpsgd_sequential(size: int) -> None:
    """x(k+1) = W (x(k) + u(x(k)))."""
    task, topology = problem(size), make_topology("ring", size)
    x = start(task, size)
    for step in range(STEPS):
        x = mixing(topology, step) @ (x - RATE * gradients(task, x))
    np.testing.assert_allclose(run("dpsgd", task, size, "ring", mixing_order="sequential"), x, rtol=0, atol=1e-12)


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


def push_sum(size: int, topology: Topology, task: LeastSquares, overlap: bool) -> np.ndarray:
    x, w = start(task, size), np.ones((size, 1))
    for step in range(STEPS):
        z = x / w
        if overlap:
            P = mixing(topology, step - 1)
            x, w = P @ x - RATE * gradients(task, z), P @ w
        else:
            P = mixing(topology, step)
            x, w = P @ (x - RATE * gradients(task, z)), P @ w
    if overlap:
        P = mixing(topology, STEPS - 1)
        x, w = P @ x, P @ w
    return x / w


def uneven_shares(size: int) -> list[np.ndarray]:
    """Column-stochastic, not row-stochastic, directed and time-varying: push-sum weights leave 1."""
    rng = np.random.default_rng(size)
    rounds = []
    for shift in (1, 2, 3):
        P = np.diag(rng.uniform(0.3, 0.7, size))
        for rank in range(size):
            P[(rank + shift) % size, rank] += 1 - P[rank, rank]
        rounds.append(P)
    return rounds


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_sgp_one_peer_exponential(size: int, overlap: bool) -> None:
    task = problem(size)
    expected = push_sum(size, make_topology("one-peer-exponential", size), task, overlap)
    actual = run("sgp", task, size, mixing_order="overlap" if overlap else "sequential")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("size", [4, 5, 7])
def test_sgp_directed_time_varying_with_uneven_shares(size: int, overlap: bool) -> None:
    task, rounds = problem(size), uneven_shares(size)
    expected = push_sum(size, make_topology(rounds, size), task, overlap)
    actual = run("sgp", task, size, rounds, mixing_order="overlap" if overlap else "sequential")
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp"])
def test_mixing_period(algorithm: str) -> None:
    """Exchanges after steps 3, 6, 9, 12; the r-th exchange uses the r-th matrix."""
    size, task = 4, problem(4)
    topology = make_topology("hypercube", size)
    x, due = start(task, size), np.eye(size)
    for step in range(1, STEPS + 1):
        x = due @ x - RATE * gradients(task, x)
        due = mixing(topology, step // 3 - 1) if step % 3 == 0 else np.eye(size)
    np.testing.assert_allclose(run(algorithm, task, size, "hypercube", mixing_period=3), due @ x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp"])
def test_global_average_replaces_every_fourth_exchange(algorithm: str) -> None:
    """Gossip-PGA: W = 11^T/n after steps 4, 8, 12."""
    size, task = 5, problem(5)
    topology = make_topology("ring", size)
    mean = np.full((size, size), 1 / size)
    x, due = start(task, size), np.eye(size)
    for step in range(1, STEPS + 1):
        x = due @ x - RATE * gradients(task, x)
        due = mean if step % 4 == 0 else topology.matrix(step - 1)
    np.testing.assert_allclose(run(algorithm, task, size, "ring", global_average_every=4), due @ x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("algorithm", ["allreduce", "dpsgd", "adpsgd", "sgp"])
def test_one_worker_is_the_wrapped_optimizer_to_the_last_bit(algorithm: str) -> None:
    task = problem(1)
    x = start(task, 1)
    for _ in range(STEPS):
        x[0] -= RATE * gradients(task, x)[0]
    np.testing.assert_array_equal(run(algorithm, task, 1), x)


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
