"""One model in a host's shared memory: nothing waits, every update counts, pauses, hosts and devices that it refuses."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.algorithms.asysg_incon import AsySGIncon
from hvd_gossip.errors import ConfigError
from hvd_gossip.runtime import Runtime
from hvd_gossip.simulate import ComputeModel, LeastSquares, Simulation, Still, simulate
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.selection import few, very_few
from hvd_gossip.testing.worlds import STRAGGLER, Drift, Scene, departures, scenes, within
from hvd_gossip.transport.simulated_links import lognormal
from tests.mpi import run_ranks


def model(simulation: Simulation) -> Vector:
    """What lies in the shared memory."""
    algorithm = simulation.workers[-1].algorithm
    assert isinstance(algorithm, AsySGIncon)
    return np.concatenate(algorithm._shared)


@few
@given(scene=scenes(sizes=st.integers(2, 12)), leaving=departures(6))
def test_the_model_is_the_first_and_all_updates_and_nobody_waits_for_a_step(
    scene: Scene, leaving: dict[int, int]
) -> None:
    leaving = within(leaving, scene.size)
    problem = Drift(scene.size, seed=scene.seed)
    simulation = scene.simulation("asysg-incon", problem)
    report = simulation.run(steps=6, departures=leaving)
    assert report.steps.tolist() == [leaving.get(rank, 6) for rank in range(scene.size)]
    expected = problem.values[0] - 0.1 * (report.steps[:, None] * problem.slopes).sum(axis=0)
    np.testing.assert_allclose(model(simulation), expected, rtol=0, atol=1e-11)


def test_an_update_is_made_at_what_was_read_and_added_to_what_is_there() -> None:
    """Rank 0 steps at 1, 2, 3 s; rank 1's gradient, taken at the first x, is there at 2.5 s. By hand."""
    problem, rng = LeastSquares(2, skew=1.0, dimension=4), np.random.default_rng(0)
    simulation = Simulation("asysg-incon", problem, size=2, compute=ComputeModel(1.0, slow={1: 2.5}), learning_rate=0.1)
    report = simulation.run(steps=3, departures={1: 1})

    def update(rank: int, x: Vector) -> Vector:
        return -0.1 * problem.gradient(rank, x, rng)

    first = np.zeros(4)
    second = first + update(0, first)
    third = second + update(0, second)
    fourth = third + update(1, first)
    fifth = fourth + update(0, third)
    np.testing.assert_allclose(report.parameters, [fifth, fourth], rtol=0, atol=1e-13)


def test_a_straggler_holds_nobody_up_though_the_model_begins_as_its_own() -> None:
    compute = ComputeModel(0.05, lognormal(1.0, 0.1), slow={0: STRAGGLER})
    report = simulate("asysg-incon", LeastSquares(6), size=6, steps=20, departures={0: 1}, compute=compute)
    assert report.departed_at[1:].max() < 2 < report.departed_at[0]


@very_few
@given(scene=scenes(sizes=st.integers(2, 8), slowest=10.0))
def test_consensus_shows_the_model_with_all_updates(scene: Scene) -> None:
    problem = Drift(scene.size, seed=scene.seed)
    simulation = scene.simulation("asysg-incon", problem, consensus_every=3)
    report = simulation.run(steps=7)
    for meeting, steps in enumerate((3, 6)):
        expected = problem.values[0] - 0.1 * steps * problem.slopes.sum(axis=0)
        for rank in range(scene.size):
            np.testing.assert_allclose(report.consensus[rank][meeting], expected, rtol=0, atol=1e-11)
    expected = problem.values[0] - 0.1 * 7 * problem.slopes.sum(axis=0)
    np.testing.assert_allclose(model(simulation), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("late", [0, 2])
def test_what_is_written_in_a_pause_is_the_model_from_then_on(late: int) -> None:
    """As hvd.broadcast_parameters does; one worker resumes long after the others."""
    simulation = Simulation("asysg-incon", Drift(3), size=3, consensus_every=10**9, chunk_bytes=16)
    problem = simulation.problem
    assert isinstance(problem, Drift)

    async def live(rank: int) -> None:
        worker = simulation.workers[rank]
        worker.algorithm.start()
        worker.collectives.start()
        await worker._step(problem.slopes[rank])
        await worker.algorithm.pause()
        worker.algorithm.settle()
        worker.x[:] = 7.0
        await worker.endpoint.sleep(1.0 if rank == late else 0.0)
        await worker.algorithm.resume()
        await worker._step(problem.slopes[rank])
        await worker.algorithm.depart()
        await worker.collectives.depart(10.0)

    world = simulation.world
    world.run([world.endpoints[rank].spawn(live(rank), "living") for rank in range(3)])
    np.testing.assert_allclose(model(simulation), 7.0 - 0.1 * problem.slopes.sum(axis=0), rtol=0, atol=1e-12)


def test_an_update_that_is_not_finite_is_refused_by_chunk() -> None:
    class Overflowing(Drift):
        def gradient(self, rank: int, x: Vector, rng: np.random.Generator) -> Vector:
            slopes = super().gradient(rank, x, rng).copy()
            if rank == 1:
                slopes[2] = math.inf
            return slopes

    problem = Overflowing(3)
    simulation = Simulation("asysg-incon", problem, size=3, chunk_bytes=16)
    with np.errstate(invalid="ignore"):
        report = simulation.run(steps=4)
    steps = np.full((3, 5), 4)
    steps[1, 2:4] = 0  # the second chunk
    expected = problem.values[0] - 0.1 * (steps * problem.slopes).sum(axis=0)
    np.testing.assert_allclose(model(simulation), expected, rtol=0, atol=1e-12)
    assert report.counters[1].refused == {1: 4}


def test_its_fixed_point_is_the_optimum_and_its_rate_one_gradient_after_the_other() -> None:
    problem, rate = LeastSquares(4, dimension=4), 0.005
    simulation = Simulation("asysg-incon", problem, size=4, learning_rate=rate)
    simulation.run(steps=50)
    x, rng = np.zeros(4), np.random.default_rng(0)
    for step in range(200):
        x = x - rate * problem.gradient(step % 4, x, rng)
    ours, serial = (float(np.linalg.norm(each - problem.optimum)) for each in (model(simulation), x))
    assert serial < 0.6 * float(np.linalg.norm(problem.optimum))
    assert ours == pytest.approx(serial, rel=0.05)
    longer = Simulation("asysg-incon", problem, size=4, learning_rate=0.02)
    longer.run(steps=300)
    assert float(np.linalg.norm(model(longer) - problem.optimum)) < 0.02


# What it refuses


def test_workers_of_several_hosts_are_refused_and_the_hosts_named() -> None:
    runtime: Any = SimpleNamespace(world=SimpleNamespace(hosts=(0, 0, 1)))
    Runtime._require_one_host(runtime, "asysg-incon", [0, 1])
    with pytest.raises(ConfigError, match=r"on 2 hosts \(host 0: ranks 0, 1; host 1: ranks 2\); use 'asgd'"):
        Runtime._require_one_host(runtime, "asysg-incon", [0, 1, 2])


def test_parameters_on_a_gpu_are_refused() -> None:
    simulation = Simulation("asysg-incon", Still(np.zeros((2, 3))), size=2)
    context = simulation.workers[0].algorithm.context
    context.replica.flats[0] = SimpleNamespace()  # CuPy's arrays are no NumPy arrays either
    with pytest.raises(ConfigError, match="these are on a GPU; use 'asgd' or 'adpsgd'"):
        AsySGIncon(context)


# Real processes


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_train_one_model_without_locks(ranks: int) -> None:
    """The sum of all updates but for those that met; nearly all of a large vector count, each at most once."""
    script = """
import numpy as np
import hvd_gossip.runtime as runtime
from tests.mpi import report

now = runtime.init(algorithm="asysg-incon", report=False)
x = np.full(300_000, 1.0 + now.world.rank)
worker = now.attach([x])

def update():
    x[:] += 1.0

for _ in range(20):
    worker.step(update)
with worker.consensus():
    seen = [float(x.min()), float(x.max()), float(x.mean())]
distance = worker.consensus_distance()
report([seen, distance >= 0.0, now.counters.exchanges])
runtime.shutdown()
"""
    for seen, fine, exchanges in run_ranks(ranks, script).in_rank_order():
        least, most, mean = seen
        assert most == 1.0 + 20 * ranks
        assert least >= 1.0
        assert mean > 1.0 + 20 * ranks * 0.9
        assert fine
        assert exchanges == 20
