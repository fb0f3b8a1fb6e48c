"""Join: workers with different numbers of steps in an epoch, over random topologies, delays, speeds and departures."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.simulate import ComputeModel, Report, Simulation, Still
from hvd_gossip.testing.row import Row
from hvd_gossip.testing.selection import few, mixes, select
from hvd_gossip.testing.worlds import Drift, Scene, departures, scenes, within
from hvd_gossip.transport.simulated_links import Links, exponential

RATE = 0.1
small = scenes(st.integers(2, 16), slowest=100.0)


def plain(row: Row) -> bool:
    """Whether its settings leave what a join does as it is."""
    return not set(row.settings) - {"mixing_order", "tau"}


@st.composite
def epochs(draw: st.DrawFn, size: int) -> list[list[int]]:
    """For each rank, its steps in each epoch: some have none."""
    count = draw(st.integers(1, 3))
    lengths = st.lists(st.integers(0, 6), min_size=count, max_size=count)
    return [draw(lengths) for _ in range(size)]


def keeps_mass(row: Row) -> bool:
    """Whether the sum over the workers tells what was done."""
    return mixes(row) and row.keeps_mass


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


@select(plain)
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
    if not keeps_mass(row):
        return
    total, weight = simulation.mass()
    np.testing.assert_allclose(total, problem.sum_after(report.steps, RATE), rtol=0, atol=1e-10)
    np.testing.assert_allclose(weight, scene.size, rtol=1e-12)


@select(plain)
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
    if keeps_mass(row):
        np.testing.assert_allclose(simulation.mass()[0], problem.sum_after(report.steps, RATE), rtol=0, atol=1e-10)


@select(lambda row: mixes(row) and plain(row))
@few
@given(scene=small, every=st.integers(1, 3), data=st.data())
def test_consensus_while_some_have_joined_and_after(row: Row, scene: Scene, every: int, data: st.DataObject) -> None:
    """Exact means are taken within the epochs, by whoever is left; ranks that have missed some take part again."""
    plan = data.draw(epochs(scene.size))
    problem = Drift(scene.size, seed=scene.seed)
    simulation, report = run(row, problem, plan, scene, consensus_every=every)
    if keeps_mass(row):
        np.testing.assert_allclose(simulation.mass()[0], problem.sum_after(report.steps, RATE), rtol=0, atol=1e-10)
    for rank, steps in enumerate(plan):
        assert len(report.consensus[rank]) == sum(count // every for count in steps)


@pytest.mark.parametrize("size", [2, 3, 8])
@select(plain)
def test_the_last_to_join_is_the_slowest(row: Row, size: int) -> None:
    """Horovod's join() returns the last rank that joined."""
    slowest = size - 1
    plan = [[2, 3]] * size
    scene = Scene(size, 3, ComputeModel(0.05, slow={slowest: 50.0}), Links())
    _, report = run(row, Still(np.zeros((size, 2))), plan, scene, topology=row.topologies[-1])
    assert [last[0] for last in report.last_joined] == [slowest] * size


@pytest.mark.parametrize("seed", range(20))
@select(lambda row: mixes(row) and plain(row))
def test_tokens_of_a_rest_may_come_when_it_is_over(row: Row, seed: int) -> None:
    """Epochs without a step for most, and tokens that are slower than the collectives' messages."""
    values = np.random.default_rng(seed).standard_normal((4, 2))
    plan = [[0, 1, 0, 2], [1, 0, 2, 1], [0, 0, 1, 3], [2, 1, 0, 0]]
    links = Links(delay=exponential(0.5))
    scene = Scene(4, seed, ComputeModel(0.01), links, {"eager_limit": (0, math.inf)[seed % 2]})
    simulation, report = run(row, Still(values), plan, scene, topology=row.topologies[-1])
    assert report.steps.tolist() == [sum(steps) for steps in plan]
    if keeps_mass(row):
        np.testing.assert_allclose(simulation.mass()[0], values.sum(axis=0), rtol=0, atol=1e-12)
