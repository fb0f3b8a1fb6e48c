"""The cost model: properties, and against the simulator at a few points."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.choice.cost import EAGER_BYTES, PERIODS, Measurements, choose, predict
from hvd_gossip.simulate import ComputeModel, Still, simulate
from hvd_gossip.transport.simulated_links import Links

FAST = Measurements((0.05,) * 8, 0.02, 2e-6, 1e10, 10_000_000)
SLOW_LINKS = dataclasses.replace(FAST, bandwidth=1e7, latency=1e-4)
MEASUREMENTS = st.builds(
    Measurements,
    compute=st.lists(st.floats(1e-3, 10.0), min_size=2, max_size=32).map(tuple),
    jitter=st.floats(0.0, 1.0),
    latency=st.floats(1e-7, 0.2),
    bandwidth=st.floats(1e5, 1e11),
    nbytes=st.integers(1, 10**10),
)


@given(measured=MEASUREMENTS, factor=st.floats(1.0, 1e3))
def test_no_step_gets_longer_by_faster_links(measured: Measurements, factor: float) -> None:
    faster = dataclasses.replace(measured, bandwidth=measured.bandwidth * factor, latency=measured.latency / factor)
    for before, after in zip(predict(measured), predict(faster), strict=True):
        assert after.cost <= before.cost * (1 + 1e-12)


@given(measured=MEASUREMENTS, factor=st.floats(1.0, 100.0), slow=st.integers(0, 31))
def test_no_step_gets_shorter_by_a_slower_worker(measured: Measurements, factor: float, slow: int) -> None:
    compute = list(measured.compute)
    compute[slow % len(compute)] *= factor
    slower = dataclasses.replace(measured, compute=tuple(compute), bandwidth=1e30, latency=0.0)
    measured = dataclasses.replace(measured, bandwidth=1e30, latency=0.0)
    for before, after in zip(predict(measured), predict(slower), strict=True):
        assert after.cost >= before.cost * (1 - 1e-12)


@given(measured=MEASUREMENTS)
def test_a_decision_is_one_of_the_candidates_and_never_slower_than_allreduce(measured: Measurements) -> None:
    decision = choose(measured)
    assert decision.chosen in decision.candidates
    assert decision.chosen.cost <= decision.candidates[0].cost
    assert decision.chosen.period in PERIODS
    assert decision == choose(measured)


@pytest.mark.parametrize("size", [2, 8, 128])
def test_fast_links_and_equal_workers_stay_with_allreduce(size: int) -> None:
    decision = choose(dataclasses.replace(FAST, compute=(0.05,) * size))
    assert decision.chosen.algorithm == "allreduce"
    assert "gains nothing" in decision.reason


@pytest.mark.parametrize("measured", [FAST, SLOW_LINKS])
@pytest.mark.parametrize("factor", [3.0, 1e4])
def test_a_straggler_means_adpsgd(measured: Measurements, factor: float) -> None:
    compute = (0.05 * factor, *(0.05,) * 7)
    assert choose(dataclasses.replace(measured, compute=compute, nbytes=100_000)).chosen.algorithm == "adpsgd"


def test_slow_links_between_equal_workers_mean_gossip_as_often_as_they_can() -> None:
    """An exchange that fits beside a step, and longer ones, which only asynchronous workers need not wait for."""
    sizes = (400_000, 900_000, 1_800_000, 10_000_000)
    chosen = [choose(dataclasses.replace(SLOW_LINKS, nbytes=nbytes)).chosen for nbytes in sizes]
    assert [one.algorithm for one in chosen] == ["dpsgd", "adpsgd", "adpsgd", "adpsgd"]
    assert [one.period for one in chosen] == [1, 2, 4, 8]


def test_one_worker_has_no_choice() -> None:
    assert [one.algorithm for one in choose(dataclasses.replace(FAST, compute=(0.1,))).candidates] == ["allreduce"]


@pytest.mark.parametrize(
    ("bandwidth", "latency", "slow"), [(1e9, 1e-5, 1.0), (2e6, 1e-3, 1.0), (1e9, 1e-5, 5.0), (5e6, 2e-2, 1.0)]
)
@pytest.mark.parametrize("position", range(4))
def test_it_predicts_what_the_simulator_measures(position: int, bandwidth: float, latency: float, slow: float) -> None:
    """Steps of 50 ms, 80 kB of parameters, 6 workers; the simulator's gradients are all there at once: no overlap."""
    size, steps = 6, 40
    factors = (slow, *(1.0,) * (size - 1))
    measured = Measurements(tuple(0.05 * factor for factor in factors), 0.0, latency, bandwidth, 80_000)
    predicted = predict(measured, overlap=0.0)[position]
    period = {"mixing_period": predicted.period} if predicted.algorithm != "allreduce" else {}
    report = simulate(
        predicted.algorithm,
        Still(np.zeros((size, 10_000))),
        size=size,
        time=steps * predicted.seconds,
        links=Links(latency, bandwidth, serialize_send=True, serialize_receive=True),
        compute=ComputeModel(0.05, slow={0: slow}),
        settings=MixingSettings(**period),
        eager_limit=EAGER_BYTES,
    )
    per_step = steps * predicted.seconds * size / report.steps.sum()
    assert per_step == pytest.approx(predicted.seconds, rel=0.3)
