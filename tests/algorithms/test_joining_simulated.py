"""Join: workers with different numbers of steps in an epoch, over random topologies, delays, speeds and departures."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.simulate import ComputeModel, Report, Simulation, Still, simulate
from hvd_gossip.topology import make_topology
from hvd_gossip.transport.simulated_links import Links, exponential
from tests.algorithms.rows import EVERYTHING, ROWS, Row
from tests.algorithms.worlds import Drift, Scene, departures, scenes, within

RATE = 0.1
PLAIN = [row for row in ROWS if not set(row.settings) - {"mixing_order"}]
everything = pytest.mark.parametrize("row", [*(row for row in EVERYTHING if row not in ROWS), *PLAIN], ids=str)
few = settings(max_examples=settings().max_examples // 5)
small = scenes(st.integers(2, 16), slowest=100.0)


@st.composite
def epochs(draw: st.DrawFn, size: int) -> list[list[int]]:
    """For each rank, its steps in each epoch: some have none."""
    count = draw(st.integers(1, 3))
    lengths = st.lists(st.integers(0, 6), min_size=count, max_size=count)
    return [draw(lengths) for _ in range(size)]


def mixes(row: Row) -> bool:
    """Whether the sum over the workers tells what was done."""
    return row.kind.averages == "parameters" and row.keeps_mass


def run(
    row: Row,
    problem: Any,
    plan: list[list[int]],
    scene: Scene,
    leaving: dict[int, int] | None = None,
    **options: Any,
) -> tuple[Simulation, Report]:
    """Trains the epochs with a join after each."""
    joins = {rank: list(itertools.accumulate(steps)) for rank, steps in enumerate(plan)}
    last = {rank: sum(steps) for rank, steps in enumerate(plan)}
    last.update((leaving or {}).items())
    topology = options.pop("topology", row.random_topology(scene.size, scene.seed))
    simulation = scene.simulation(row, problem, topology=topology, joins=joins, **options)
    return simulation, simulation.run(steps=10**9, departures=last)


@everything
@few
@given(scene=small, data=st.data())
def test_mass_changes_by_the_updates_alone_and_nobody_hangs(row: Row, scene: Scene, data: st.DataObject) -> None:
    plan = data.draw(epochs(scene.size))
    choices: dict[str, Any] = {"global_average_every": data.draw(st.sampled_from([0, 2]))}
    choices["mixing_period"] = data.draw(st.integers(1, 2))
    options = {name: value for name, value in choices.items() if row.heeds(name)}
    problem = Drift(scene.size, seed=scene.seed)
    simulation, report = run(row, problem, plan, scene, **options)
    assert report.steps.tolist() == [sum(steps) for steps in plan]
    assert all(last == report.last_joined[0] for last in report.last_joined)
    assert len(report.last_joined[0]) == len(plan[0])
    assert set(report.last_joined[0]) <= set(range(scene.size))
    if not mixes(row):
        return
    total, weight = simulation.mass()
    np.testing.assert_allclose(total, problem.sum_after(report.steps, RATE), rtol=0, atol=1e-10)
    np.testing.assert_allclose(weight, scene.size, rtol=1e-12)


@everything
@few
@given(scene=small, leaving=departures(10), data=st.data())
def test_departures_before_during_and_after_a_join_leave_nobody_waiting(
    row: Row, scene: Scene, leaving: dict[int, int], data: st.DataObject
) -> None:
    plan = data.draw(epochs(scene.size))
    leaving = {rank: min(step, sum(plan[rank])) for rank, step in within(leaving, scene.size).items()}
    problem = Drift(scene.size, seed=scene.seed)
    simulation, report = run(row, problem, plan, scene, leaving)
    assert report.steps.tolist() == [leaving.get(rank, sum(steps)) for rank, steps in enumerate(plan)]
    stayed = [last for rank, last in enumerate(report.last_joined) if rank not in leaving]
    assert all(last == stayed[0] for last in stayed)
    if mixes(row):
        np.testing.assert_allclose(simulation.mass()[0], problem.sum_after(report.steps, RATE), rtol=0, atol=1e-10)


@pytest.mark.parametrize("row", PLAIN, ids=str)
@few
@given(scene=small, every=st.integers(1, 3), data=st.data())
def test_consensus_while_some_have_joined_and_after(row: Row, scene: Scene, every: int, data: st.DataObject) -> None:
    """Exact means are taken within the epochs, by whoever is left; ranks that have missed some take part again."""
    plan = data.draw(epochs(scene.size))
    problem = Drift(scene.size, seed=scene.seed)
    simulation, report = run(row, problem, plan, scene, consensus_every=every)
    if mixes(row):
        np.testing.assert_allclose(simulation.mass()[0], problem.sum_after(report.steps, RATE), rtol=0, atol=1e-10)
    for rank, steps in enumerate(plan):
        assert len(report.consensus[rank]) == sum(count // every for count in steps)


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
    row = Row(algorithm)
    """On the complete graph one exchange of all workers brings consensus; in the first epoch rank 0 takes no part."""
    values = np.random.default_rng(0).standard_normal((5, 3))
    plan = [[0, 2], [3, 2], [1, 2], [5, 2], [2, 2]]
    scene = Scene(5, 1, ComputeModel(), Links())
    _, report = run(row, Still(values), plan, scene, topology="complete")
    np.testing.assert_allclose(report.parameters, np.tile(values.mean(axis=0), (5, 1)), rtol=0, atol=1e-12)


def test_adpsgd_s_joined_workers_answer_their_neighbours() -> None:
    """One responder has no data; its neighbours' models reach it all the same. Nobody waits."""
    values = np.random.default_rng(0).standard_normal((4, 3))
    mean = values.mean(axis=0)
    initiators, _ = make_topology("complete", 4).pairs()
    idle = next(rank for rank in range(4) if rank not in initiators)
    plan = [[0 if rank == idle else 60] for rank in range(4)]
    scene = Scene(4, 1, ComputeModel(0.05, exponential(1.0)), Links())
    simulation, report = run("adpsgd", Still(values.copy()), plan, scene, topology="complete")
    assert simulation.workers[idle].counters.exchanges > 10
    assert np.abs(report.parameters[idle] - mean).max() < 0.3 * np.abs(values[idle] - mean).max()
    assert np.all(report.waited == 0)


def test_an_initiator_that_has_joined_starts_no_exchange() -> None:
    """Its partners' pace would make it go on."""
    (initiator,), _ = make_topology("complete", 2).pairs()
    plan = [[2 if rank == initiator else 200] for rank in range(2)]
    scene = Scene(2, 1, ComputeModel(0.05), Links())
    simulation, _ = run("adpsgd", Still(np.zeros((2, 3))), plan, scene)
    assert 0 < simulation.workers[0].counters.exchanges < 10


@pytest.mark.parametrize("size", [2, 3, 8])
@everything
def test_the_last_to_join_is_the_slowest(row: Row, size: int) -> None:
    """Horovod's join() returns the last rank that joined."""
    slowest = size - 1
    plan = [[2, 3]] * size
    scene = Scene(size, 3, ComputeModel(0.05, slow={slowest: 50.0}), Links())
    _, report = run(row, Still(np.zeros((size, 2))), plan, scene, topology="complete")
    assert [last[0] for last in report.last_joined] == [slowest] * size


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("row", PLAIN, ids=str)
def test_tokens_of_a_rest_may_come_when_it_is_over(row: Row, seed: int) -> None:
    """Epochs without a step for most, and tokens that are slower than the collectives' messages."""
    values = np.random.default_rng(seed).standard_normal((4, 2))
    plan = [[0, 1, 0, 2], [1, 0, 2, 1], [0, 0, 1, 3], [2, 1, 0, 0]]
    links = Links(delay=exponential(0.5))
    scene = Scene(4, seed, ComputeModel(0.01), links, {"eager_limit": (0, math.inf)[seed % 2]})
    simulation, _ = run(row, Still(values), plan, scene, topology="complete")
    np.testing.assert_allclose(simulation.mass()[0], values.sum(axis=0), rtol=0, atol=1e-12)
