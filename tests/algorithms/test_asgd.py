"""The parameter server: its model, staleness and softsync, several servers, departures and deaths, fixed point and rate."""

from __future__ import annotations

import gc
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.errors import ConfigError, PeerFailedError, WaitTimeoutError
from hvd_gossip.simulate import ComputeModel, LeastSquares, Report, Simulation, Still, simulate
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.selection import few, very_few
from hvd_gossip.testing.worlds import STRAGGLER, Drift, Scene, departures, scenes, within
from hvd_gossip.transport.simulated_links import Links, exponential, lognormal

ORDERS = pytest.mark.parametrize("order", ["sequential", "overlap"])
SERVERS = st.sampled_from([0, 1, 2])


def model(simulation: Simulation) -> Vector:
    """What the servers keep, chunk by chunk."""
    chunks: dict[int, Vector] = {}
    for worker in simulation.workers:
        server = getattr(worker.algorithm, "_server", None)
        if server is not None:
            chunks.update({chunk.index: values for chunk, values in zip(server._shard, server._values, strict=True)})
    return np.concatenate([chunks[index] for index in sorted(chunks)])


def asgd(problem: Any, size: int, steps: float, *, order: str = "auto", **options: Any) -> tuple[Simulation, Report]:
    """`steps`: of each worker; a float: virtual seconds."""
    names = ("servers", "softsync", "staleness_aware", "wait_timeout")
    settings = {name: options.pop(name) for name in names if name in options}
    run_options = {name: options.pop(name) for name in ("departures", "deaths") if name in options}
    mixing = MixingSettings(**{"wait_timeout": math.inf, **settings}, mixing_order=order)
    simulation = Simulation("asgd", problem, size=size, settings=mixing, chunk_bytes=16, **options)
    if isinstance(steps, int):
        return simulation, simulation.run(steps=steps, **run_options)
    return simulation, simulation.run(time=steps, **run_options)


# The model


@ORDERS
@few
@given(scene=scenes(sizes=st.integers(2, 12)), leaving=departures(6), servers=SERVERS)
def test_the_model_is_the_first_and_all_updates(
    order: str, scene: Scene, leaving: dict[int, int], servers: int
) -> None:
    """No update is lost or counted twice, and nobody waits for the straggler's training."""
    leaving = within(leaving, scene.size)
    problem = Drift(scene.size, seed=scene.seed)
    simulation = scene.simulation("asgd", problem, servers=servers, mixing_order=order)
    report = simulation.run(steps=6, departures=leaving)
    assert report.steps.tolist() == [leaving.get(rank, 6) for rank in range(scene.size)]
    owners = np.repeat(np.arange(3) % (servers or scene.size), [2, 2, 1])
    first = np.array([problem.values[owner, index] for index, owner in enumerate(owners)])
    expected = first - 0.1 * (report.steps[:, None] * problem.slopes).sum(axis=0)
    np.testing.assert_allclose(model(simulation), expected, rtol=0, atol=1e-11)


def test_updates_are_applied_to_the_newest_and_made_at_what_was_read() -> None:
    """Rank 0 steps at 1, 2, 3, 4 s; rank 1's gradient, taken at the first x, arrives at 2.5 s. By hand."""
    problem = LeastSquares(2, skew=1.0, dimension=4)
    compute, rng = ComputeModel(1.0, slow={1: 2.5}), np.random.default_rng(0)
    simulation, report = asgd(problem, 2, 4, compute=compute, departures={1: 1}, learning_rate=0.1)

    def update(rank: int, x: Vector) -> Vector:
        return -0.1 * problem.gradient(rank, x, rng)

    first = np.zeros(4)
    second = first + update(0, first)
    third = second + update(0, second)
    fourth = third + update(1, first)
    fifth = fourth + update(0, third)
    sixth = fifth + update(0, fifth)
    np.testing.assert_allclose(model(simulation), sixth, rtol=0, atol=1e-13)
    np.testing.assert_allclose(report.parameters, [sixth, fourth], rtol=0, atol=1e-13)
    assert report.counters[0].staleness == {0: 0, 1: 2}
    assert report.counters[1].staleness == {0: 2}


def test_staleness_aware_divides_an_update_by_its_staleness() -> None:
    compute, values = ComputeModel(1.0, slow={1: 3.5}), np.zeros((2, 5))
    problem = Drift(2)
    problem.values = values
    simulation, _ = asgd(problem, 2, 4, compute=compute, departures={1: 1}, staleness_aware=True)
    expected = -0.1 * (4 * problem.slopes[0] + problem.slopes[1] / 3)
    # Rank 0's fourth update was made before rank 1's third version came in between: its staleness is 1.
    np.testing.assert_allclose(model(simulation), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_softsync_applies_the_mean_of_so_many_updates(size: int) -> None:
    """All workers step at once: as many updates as workers are one mean each time."""
    problem = Drift(size)
    _, report = asgd(problem, size, 6, softsync=size, consensus_every=6)
    expected = problem.values[0] - 0.1 * 6 * problem.slopes.mean(axis=0)
    np.testing.assert_allclose(report.consensus[0][0], expected, rtol=0, atol=1e-12)
    assert all(max(counters.staleness.values(), default=0) <= 1 for counters in report.counters)


def test_softsync_is_bounded_by_the_workers_that_are_left() -> None:
    """Of three workers two leave; the third's updates are not kept waiting for theirs."""
    problem = Drift(3)
    simulation, _ = asgd(problem, 3, 40, softsync=3, departures={1: 0, 2: 0})
    expected = problem.values[0] - 0.1 * 40 * problem.slopes[0]
    np.testing.assert_allclose(model(simulation), expected, rtol=0, atol=1e-12)


# Exact averages


@ORDERS
@very_few
@given(scene=scenes(sizes=st.integers(2, 8), slowest=10.0), servers=SERVERS)
def test_consensus_shows_the_servers_model_with_all_updates(order: str, scene: Scene, servers: int) -> None:
    problem = Drift(scene.size, seed=scene.seed)
    simulation = scene.simulation("asgd", problem, servers=servers, mixing_order=order, consensus_every=3)
    report = simulation.run(steps=7)
    owners = np.repeat(np.arange(3) % (servers or scene.size), [2, 2, 1])
    first = np.array([problem.values[owner, index] for index, owner in enumerate(owners)])
    for meeting, steps in enumerate((3, 6)):
        expected = first - 0.1 * steps * problem.slopes.sum(axis=0)
        for rank in range(scene.size):
            np.testing.assert_allclose(report.consensus[rank][meeting], expected, rtol=0, atol=1e-11)
    expected = first - 0.1 * 7 * problem.slopes.sum(axis=0)
    np.testing.assert_allclose(model(simulation), expected, rtol=0, atol=1e-11)


def test_consensus_applies_what_softsync_has_collected() -> None:
    problem = Drift(3)
    _, report = asgd(problem, 3, 1, softsync=2, consensus_every=1, compute=ComputeModel(0.05, slow={1: 2.0, 2: 3.0}))
    expected = problem.values[0] - 0.1 * (problem.slopes[:2].mean(axis=0) + problem.slopes[2])
    np.testing.assert_allclose(report.consensus[1][0], expected, rtol=0, atol=1e-12)


def test_what_is_written_in_a_pause_is_the_model_from_then_on() -> None:
    """As hvd.broadcast_parameters does; the others resume, and update, before the server does."""
    simulation = Simulation("asgd", Drift(3), size=3, consensus_every=10**9, chunk_bytes=16)
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
        await worker.endpoint.sleep(0.0 if rank else 1.0)
        await worker.algorithm.resume()
        await worker._step(problem.slopes[rank])
        await worker.algorithm.depart()
        await worker.collectives.depart(10.0)
        await worker.algorithm.linger()

    world = simulation.world
    world.run([world.endpoints[rank].spawn(live(rank), "living") for rank in range(3)])
    np.testing.assert_allclose(model(simulation), 7.0 - 0.1 * problem.slopes.sum(axis=0), rtol=0, atol=1e-12)


# Progress, departures, deaths


@ORDERS
def test_a_server_that_trains_slowly_serves_at_once(order: str) -> None:
    compute = ComputeModel(0.05, lognormal(1.0, 0.1), slow={0: STRAGGLER})
    _, report = asgd(LeastSquares(6), 6, 20, order=order, compute=compute, departures={0: 1})
    assert report.finished_at[1:].max() < 2
    assert report.departed_at[1:].max() < 2 < report.departed_at[0]


def test_a_server_serves_until_all_have_departed() -> None:
    compute = ComputeModel(0.05, slow={3: 100.0})
    _, report = asgd(LeastSquares(4), 4, 10, compute=compute, servers=2)
    assert report.finished_at[:3].max() < 1 < 49 < report.finished_at[3]
    assert report.departed_at[2] < 1, "a worker that keeps nothing leaves when it is done"
    assert report.departed_at[:2].min() >= report.finished_at[3]


# The world stops at the failure, and drops what has not begun yet.
@pytest.mark.filterwarnings("ignore:.*was never awaited:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_dead_server_is_named() -> None:
    with pytest.raises(RuntimeError) as caught:
        asgd(LeastSquares(3), 3, 50, deaths={0: 0.31}, links=Links(latency=1e-3))
    error = caught.value.__cause__
    assert isinstance(error, PeerFailedError)
    assert error.peer == 0
    assert re.match(r"rank [12]: server rank 0 is gone, and with it its shard", str(error))
    del caught, error
    gc.collect()


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(WaitTimeoutError, match=r"rank 1 waited 5 s for the newest parameters of server rank\(s\) 0"):
        asgd(LeastSquares(2), 2, 3, links=Links(latency=4.0), wait_timeout=5.0)


def test_more_servers_than_ranks_are_refused() -> None:
    with pytest.raises(ConfigError, match="servers=3, but there are only 2 ranks"):
        asgd(LeastSquares(2), 2, 1, servers=3)


# Poison


def test_an_update_that_is_not_finite_is_refused_by_both_sides_and_its_other_chunks_count() -> None:
    class Overflowing(Drift):
        def gradient(self, rank: int, x: Vector, rng: np.random.Generator) -> Vector:
            slopes = super().gradient(rank, x, rng).copy()
            if rank == 1:
                slopes[2] = math.inf
            return slopes

    problem = Overflowing(3)
    with np.errstate(invalid="ignore"):
        simulation, report = asgd(problem, 3, 4)
    steps = np.full((3, 5), 4)
    steps[1, 2:4] = 0  # the second chunk
    expected = problem.values[0] - 0.1 * (steps * problem.slopes).sum(axis=0)
    np.testing.assert_allclose(model(simulation), expected, rtol=0, atol=1e-12)
    assert report.counters[0].refused == {1: 4}
    assert report.counters[1].refused == {1: 4}


# Fixed point and rate


@ORDERS
@pytest.mark.parametrize("settings", [{}, {"staleness_aware": True}, {"softsync": 2}], ids=str)
def test_its_fixed_point_is_the_optimum_but_for_the_step_size(order: str, settings: dict[str, Any]) -> None:
    compute, links = ComputeModel(0.05, lognormal(1.0, 0.3)), Links(delay=exponential(0.01))
    problem = LeastSquares(6, skew=0.1, dimension=4)
    errors = []
    for rate, time in ((0.05, 8.0), (0.025, 16.0)):
        simulation, _ = asgd(
            problem, 6, time, order=order, learning_rate=rate, compute=compute, links=links, **settings
        )
        errors.append(float(np.linalg.norm(model(simulation) - problem.optimum)))
    assert max(errors) < 0.1


def test_its_rate_is_that_of_one_gradient_after_the_other() -> None:
    """n workers make n updates in the time of one; with a small step size their staleness changes little."""
    problem, rate = LeastSquares(4, dimension=4), 0.005
    simulation, _ = asgd(problem, 4, 50, learning_rate=rate)
    x, rng = np.zeros(4), np.random.default_rng(0)
    for step in range(200):
        x = x - rate * problem.gradient(step % 4, x, rng)
    ours, serial = (float(np.linalg.norm(each - problem.optimum)) for each in (model(simulation), x))
    assert serial < 0.6 * float(np.linalg.norm(problem.optimum))
    assert ours == pytest.approx(serial, rel=0.05)


def test_workers_with_nothing_to_learn_take_the_servers_model() -> None:
    values = np.arange(12.0).reshape(3, 4)
    report = simulate("asgd", Still(values.copy()), size=3, steps=2)
    np.testing.assert_array_equal(report.parameters, np.tile(values[0], (3, 1)))


def test_the_others_take_exact_averages_when_a_server_has_departed() -> None:
    problem = Drift(3)
    _, report = asgd(problem, 3, 6, departures={0: 2}, consensus_every=3)
    for meeting, steps in enumerate((3, 6)):
        expected = problem.values[0] - 0.1 * (2 * problem.slopes[0] + steps * problem.slopes[1:].sum(axis=0))
        for rank in (1, 2):
            np.testing.assert_allclose(report.consensus[rank][meeting], expected, rtol=0, atol=1e-12)
    assert report.departed_at[0] >= report.finished_at.max()
