"""The invariants of the design over random topologies, delays, reorderings, speeds and departures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.simulate import ComputeModel, LeastSquares, Still
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.testing.row import Row
from hvd_gossip.testing.selection import few, mixes, select, very_few
from hvd_gossip.testing.worlds import Drift, Scene, departures, scenes, within
from hvd_gossip.transport.simulated_links import Links

RATE = 0.1
STEPS = 8


# Mass


@select(lambda row: mixes(row) and row.keeps_mass)
@few
@given(
    scene=scenes(),
    leaving=departures(STEPS),
    period=st.integers(1, 3),
    wire=st.sampled_from(["parameter", "float16", "bfloat16"]),
    dtype=st.sampled_from([np.float64, np.float32]),
)
def test_mass_changes_by_the_updates_alone(
    row: Row, scene: Scene, leaving: dict[int, int], period: int, wire: str, dtype: Any
) -> None:
    problem = Drift(scene.size, dtype=dtype, seed=scene.seed)
    settings = {name: value for name, value in (("mixing_period", period), ("wire_dtype", wire)) if row.heeds(name)}
    simulation = scene.simulation(
        row, problem, topology=row.random_topology(scene.size, scene.seed), **{**settings, **row.settings}
    )
    report = simulation.run(steps=STEPS, departures=within(leaving, scene.size))
    total, weight = simulation.mass()
    tolerance = scene.size * STEPS * 50 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(total, problem.sum_after(report.steps, RATE), rtol=0, atol=tolerance)
    np.testing.assert_allclose(weight, scene.size, rtol=1e-12)


@select(lambda row: mixes(row) and row.synchronous)
@very_few
@given(scene=scenes())
def test_a_synchronous_result_does_not_depend_on_timing_to_the_last_bit(row: Row, scene: Scene) -> None:
    problem = LeastSquares(scene.size, skew=1.0, seed=scene.seed)
    topology = row.random_topology(scene.size, scene.seed)
    calm = Scene(scene.size, scene.seed, ComputeModel(), Links())
    one, other = (where.simulation(row, problem, topology=topology).run(steps=STEPS) for where in (scene, calm))
    np.testing.assert_array_equal(one.parameters, other.parameters)


@select(lambda row: row.is_wrapped_alone)
@very_few
@given(scene=scenes(sizes=st.just(1)))
def test_one_worker_is_the_plain_optimizer_exactly(row: Row, scene: Scene) -> None:
    problem = LeastSquares(1, batch=3, dtype=np.float32, seed=scene.seed)
    report = scene.simulation(row, problem).run(steps=STEPS)
    x, rng = problem.initial(0), np.random.default_rng((scene.seed, 0, 1))
    for _ in range(STEPS):
        x -= RATE * problem.gradient(0, x, rng)
    np.testing.assert_array_equal(report.parameters[0], x)


@select(mixes)
@few
@given(scene=scenes(), leaving=departures(STEPS), exact=st.sampled_from([0, 3]))
def test_departures_leave_nobody_waiting(row: Row, scene: Scene, leaving: dict[int, int], exact: int) -> None:
    leaving = within(leaving, scene.size)
    options = {"global_average_every": exact} if row.heeds("global_average_every") else {}
    topology = row.random_topology(scene.size, scene.seed)
    simulation = scene.simulation(row, LeastSquares(scene.size), topology=topology, **options)
    report = simulation.run(steps=STEPS, departures=leaving)
    assert report.steps.tolist() == [leaving.get(rank, STEPS) for rank in range(scene.size)]
    assert np.all(np.isfinite(report.parameters))


@select(lambda row: True)
@few
@given(scene=scenes(sizes=st.integers(2, 16)), leaving=departures(STEPS))
def test_allreduce_and_consensus_go_on_without_the_departed(row: Row, scene: Scene, leaving: dict[int, int]) -> None:
    leaving = within(leaving, scene.size)
    every = 0 if row.algorithm == "allreduce" else 2
    simulation = scene.simulation(row, LeastSquares(scene.size), consensus_every=every)
    report = simulation.run(steps=STEPS, departures=leaving)
    assert report.steps.tolist() == [leaving.get(rank, STEPS) for rank in range(scene.size)]


@select(lambda row: mixes(row) and row.keeps_mass)
@very_few
@given(scene=scenes(sizes=st.integers(2, 16), slowest=10.0))
def test_consensus_is_the_mean_and_moves_no_mass(row: Row, scene: Scene) -> None:
    problem = Drift(scene.size, seed=scene.seed)
    topology = row.random_topology(scene.size, scene.seed)
    simulation = scene.simulation(row, problem, topology=topology, consensus_every=3)
    report = simulation.run(steps=7)
    for meeting, steps in enumerate((3, 6)):
        mean = problem.sum_after(np.full(scene.size, steps), RATE) / scene.size
        for rank in range(scene.size):
            np.testing.assert_allclose(report.consensus[rank][meeting], mean, rtol=0, atol=1e-12)
    total, weight = simulation.mass()
    np.testing.assert_allclose(total, problem.sum_after(report.steps, RATE), rtol=0, atol=1e-11)
    np.testing.assert_allclose(weight, scene.size, rtol=1e-12)


# Poison


class Poisonous(Drift):
    """One rank's gradient stops being finite at its third step."""

    def __init__(self, size: int, rank: int, value: float, **options: Any) -> None:
        super().__init__(size, **options)
        self.rank, self.value, self.taken = rank, value, 0

    def gradient(self, rank: int, x: Vector, rng: np.random.Generator) -> Vector:
        gradient = super().gradient(rank, x, rng)
        if rank == self.rank:
            self.taken += 1
            if self.taken == 3:
                gradient = gradient.copy()
                gradient[1] = self.value
        return gradient


@select(mixes)
@few
@given(
    scene=scenes(slowest=3.0),
    victim=st.integers(0, 63),
    value=st.sampled_from([math.nan, math.inf, -math.inf]),
    wire=st.sampled_from(["parameter", "bfloat16"]),
)
def test_a_poisoned_replica_poisons_nobody(row: Row, scene: Scene, victim: int, value: float, wire: str) -> None:
    victim %= scene.size
    problem = Poisonous(scene.size, victim, value, seed=scene.seed)
    topology = row.random_topology(scene.size, scene.seed)
    options = {"wire_dtype": wire} if row.heeds("wire_dtype") else {}
    simulation = scene.simulation(row, problem, topology=topology, **options)
    with np.errstate(invalid="ignore"):
        report = simulation.run(steps=STEPS)
    healthy = np.arange(scene.size) != victim
    assert np.all(np.isfinite(report.parameters[healthy]))
    assert row.heals or not np.isfinite(report.parameters[victim, 1])
    if row.synchronous and "mixing_period" not in row.settings:  # else the victim may meet nobody in what is left
        assert sum(counters.poisoned for counters in report.counters) > 0


@select(lambda row: mixes(row) and row.heeds("wire_dtype") and row.keeps_mass)
@few
@given(scene=scenes(slowest=3.0))
def test_what_overflows_on_a_narrow_wire_is_refused_and_kept(row: Row, scene: Scene) -> None:
    """A value beyond float16's range is fine where it is stored; it cannot travel, and no mass is lost."""
    values = np.random.default_rng(scene.seed).standard_normal((scene.size, 5))
    values[scene.size // 2, 0] = 1e6
    topology = row.random_topology(scene.size, scene.seed)
    simulation = scene.simulation(row, Still(values), topology=topology, wire_dtype="float16")
    simulation.run(steps=STEPS)
    total, weight = simulation.mass()
    np.testing.assert_allclose(total, values.sum(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(weight, scene.size, rtol=1e-12)
