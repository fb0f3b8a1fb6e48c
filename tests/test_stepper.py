"""What counts as a step's compute, and how much longer `--inject slow` makes it: in virtual seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hvd_gossip import stepper as module
from hvd_gossip.engine import Engine
from hvd_gossip.observe.counters import Counters
from hvd_gossip.observe.metrics import MetricsWriter, NullMetrics, read_metrics
from hvd_gossip.stepper import Stepper


@dataclass
class VirtualTime:
    """Stands where `hvd_gossip.stepper` reads the time: seconds pass only when told."""

    now: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def unreached(scheduler: object) -> None:
    raise AssertionError("the engine of these tests is never started")


@dataclass
class Rank:
    """A training thread: computes, and waits for its engine as `Engine.wait_for` counts it."""

    time: VirtualTime
    engine: Engine

    def compute(self, seconds: float) -> None:
        self.time.now += seconds

    def wait(self, seconds: float) -> None:
        self.time.now += seconds
        self.engine.waited += seconds

    def stepper(self, slowdown: float, metrics: MetricsWriter | NullMetrics | None = None) -> Stepper:
        return Stepper(self.engine, metrics or NullMetrics(), Counters(), slowdown, lambda *span: None)


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Rank:
    time = VirtualTime()
    monkeypatch.setattr(module, "time", time)
    return Rank(time, Engine(unreached))  # type: ignore[arg-type]


def test_a_straggler_sleeps_nine_times_what_it_computed_and_none_of_what_it_waited(rank: Rank) -> None:
    stepper = rank.stepper(10.0)
    stepper.step(lambda: None)  # nothing came before it that could be measured
    for compute, wait in ((0.04, 0.0), (0.04, 2.0), (0.01, 0.5)):
        rank.compute(compute)
        rank.wait(wait)
        stepper.step(lambda: None)
    assert rank.time.sleeps == pytest.approx([0.36, 0.36, 0.09])


def test_what_is_done_once_between_two_steps_is_not_done_ten_times_as_long(rank: Rank) -> None:
    stepper = rank.stepper(10.0)
    stepper.step(lambda: None)
    for compute in (0.04, 0.04, 5.0, 0.04, 0.2):
        rank.compute(compute)
        stepper.step(lambda: None)
    assert rank.time.sleeps == pytest.approx([0.36, 0.36, 9 * 0.4, 0.36, 9 * 0.2])


def test_neither_the_update_nor_the_sleep_of_one_step_slows_the_next(rank: Rank) -> None:
    stepper = rank.stepper(10.0)
    for _ in range(4):
        rank.compute(0.04)
        stepper.step(lambda: rank.wait(3.0))  # the others' gradients are awaited here
    assert rank.time.sleeps == pytest.approx([0.36] * 3)


def test_who_is_not_slowed_never_sleeps(rank: Rank) -> None:
    stepper = rank.stepper(1.0)
    for _ in range(3):
        rank.compute(0.04)
        stepper.step(lambda: None)
    assert rank.time.sleeps == []


def test_metrics_call_the_sleep_compute_and_the_wait_waiting(rank: Rank, tmp_path: Path) -> None:
    metrics = MetricsWriter(tmp_path, 0)
    stepper = rank.stepper(10.0, metrics)
    stepper.step(lambda: None)
    for _ in range(5):
        rank.compute(0.04)
        stepper.step(lambda: rank.wait(0.1))
    metrics.close(Counters())
    summary = read_metrics(tmp_path)[0].summary
    assert summary is not None
    assert summary["steps"] == 5
    assert summary["step_seconds"] == pytest.approx(0.5)
    assert summary["compute_seconds"] == pytest.approx(0.4)
    assert summary["wait_seconds"] == pytest.approx(0.1)
