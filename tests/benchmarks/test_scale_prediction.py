"""Predictions against what can be said without a simulator."""

from __future__ import annotations

import pytest

from benchmarks.scale.prediction import CLOSED_FORM, Run, Scenario, algorithms, predict
from benchmarks.scale.ring import ring_seconds
from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.simulate import ComputeModel
from hvd_gossip.transport.simulated_links import Links, uniform

LINKS = Links(latency=1e-3, bandwidth=1e9, serialize_send=True, serialize_receive=True, express_bytes=4096)


def scenario(nbytes: float = 1e6, size: int = 8, **compute: object) -> Scenario:
    return Scenario(size, nbytes, LINKS, ComputeModel(0.1, **compute))  # type: ignore[arg-type]


def test_every_registered_algorithm_is_predicted() -> None:
    assert algorithms()[0] == CLOSED_FORM
    assert sorted(algorithms()) == sorted(ALGORITHMS)


@pytest.mark.parametrize("name", ["dpsgd", "adpsgd", "sgp"])
def test_a_model_that_travels_in_less_than_a_step_costs_nothing(name: str) -> None:
    prediction = predict(name, scenario(), 20)
    assert prediction.step_seconds == pytest.approx(0.1, rel=0.05)
    assert prediction.waited < 0.02


def test_a_synchronous_exchange_that_takes_longer_than_compute_is_the_step() -> None:
    """One peer a step: a token's latency, the announcement, the answer and the bytes, in two lanes behind each other."""
    prediction = predict("sgp", scenario(nbytes=1e9), 20)
    assert prediction.step_seconds == pytest.approx(1.0 + 4e-3, rel=0.06)
    assert prediction.bytes_a_step == pytest.approx(1e9, rel=0.06)


def test_adpsgd_never_waits_and_sends_what_its_links_can_carry() -> None:
    prediction = predict("adpsgd", scenario(nbytes=1e9), 40)
    assert prediction.step_seconds == pytest.approx(0.1, rel=0.05)
    assert prediction.bytes_a_step <= 1e9 * 0.1 * 1.1


def test_allreduce_waits_for_the_slowest_and_for_its_ring() -> None:
    prediction = predict(CLOSED_FORM, scenario(slow={3: 10.0}), 5)
    assert prediction.step_seconds == pytest.approx(1.0 + ring_seconds(8, 1e6, LINKS))
    assert prediction.rate == pytest.approx(8 / prediction.step_seconds)


@pytest.mark.parametrize("jitter", [1.0, uniform(0.7, 1.3)])
def test_allreduce_s_closed_form_is_what_its_own_object_does(jitter: object) -> None:
    """The object adds its negotiation: a few latencies. Fewer elements would travel within its control messages."""
    one = scenario(nbytes=8e6, size=4, jitter=jitter)
    run = Run(CLOSED_FORM, one, elements=1 << 14)
    run.until(5)
    before = run.mark()
    run.until(45)
    events = run.between(before, run.mark())
    assert events.step_seconds == pytest.approx(predict(CLOSED_FORM, one, 40).step_seconds, rel=0.12)


def test_departed_workers_leave_the_others_their_pace() -> None:
    alone = Scenario(8, 1e6, LINKS, ComputeModel(0.1), departures={1: 3, 6: 5})
    prediction = predict("dpsgd", alone, 20, warm_up=8)
    assert prediction.rate == pytest.approx(6 / 0.1, rel=0.06)
