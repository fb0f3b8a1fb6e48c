"""How the ranks' records of the straggler benchmark become seconds an epoch and ratios."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from benchmarks import straggler
from benchmarks.job import Job, JobFailed
from benchmarks.options import StragglerOptions
from benchmarks.report import Report
from benchmarks.spread import Spread
from benchmarks.straggler import Epochs, paper_ratios, speed

OPTIONS = StragglerOptions(ranks=3, step_ms=100.0, batch=4, slowdowns=(1.0, 2.0, 100.0), steps=10, repetitions=1)
Record = dict[str, Any]


def alone(rank: int, repetition: int = 0, step: float = 0.1) -> Record:
    """One worker alone; the others have slept."""
    times = {"start": 5.0, "ends": [5.0 + step, 5.0 + 2 * step]} if rank == 0 else {}
    return {"kind": "alone", "repetition": repetition, **times}


def gossip(rank: int, slowdown: float, seconds: float, samples: int = 40, repetition: int = 0) -> Record:
    """An epoch in which rank 2 was slow and, from a slowdown of 100 on, interrupted."""
    interrupted = rank == 2 and slowdown >= 100
    end = 1000.0 if interrupted else 100.0 + seconds - 0.01 * rank
    return {
        "kind": "adpsgd", "repetition": repetition, "slowdown": slowdown, "slow": 2, "start": 100.0 + 0.001 * rank,
        "end": end, "samples": samples, "interrupted": interrupted,
    }  # fmt: skip


def allreduce(rank: int, slowdown: float, step: float, steps: int = 5) -> Record:
    return {
        "kind": "allreduce", "repetition": 0, "slowdown": slowdown, "slow": 2, "start": 200.0 + 0.001 * rank,
        "end": 200.0 + steps * step, "steps": steps,
    }  # fmt: skip


def records(rank: int) -> list[Record]:
    return [
        alone(rank),
        gossip(rank, 1.0, 1.05),
        allreduce(rank, 1.0, 0.12),
        gossip(rank, 2.0, 1.2),
        allreduce(rank, 2.0, 0.22),
        gossip(rank, 100.0, 1.5),
    ]


@pytest.fixture
def epochs() -> Epochs:
    return Epochs(OPTIONS, [records(rank) for rank in range(3)])


def test_the_ideal_is_one_worker_alone_over_what_the_workers_are_worth(epochs: Epochs) -> None:
    assert speed(3, 1.0) == 3.0
    assert speed(16, 2.0) == 15.5
    assert speed(16, 10_000.0) == pytest.approx(15.0001)
    assert epochs.ideal(1.0).median == pytest.approx(30 * 0.1 / 3)
    assert epochs.ideal(2.0).median == pytest.approx(30 * 0.1 / 2.5)
    slower = Epochs(OPTIONS, [[alone(rank, step=0.2), *records(rank)[1:]] for rank in range(3)])
    assert slower.ideal(1.0).median == pytest.approx(30 * 0.2 / 3)
    assert slower.slept_ideal(1.0) == pytest.approx(30 * 0.1 / 3), "whatever a batch costs beside its sleep"


def test_an_epoch_ends_with_the_last_worker_that_was_not_interrupted(epochs: Epochs) -> None:
    assert epochs.gossip(1.0).values == pytest.approx([1.05])
    assert epochs.gossip(100.0).values == pytest.approx([1.5])


def test_samples_that_were_lost_or_handed_out_twice_fail_the_benchmark() -> None:
    lost = [[alone(rank), gossip(rank, 1.0, 1.0, samples=40 - (rank == 1))] for rank in range(3)]
    with pytest.raises(JobFailed, match="an epoch of 120 samples had 119 handed out"):
        Epochs(OPTIONS, lost).gossip(1.0)


def test_allreduce_is_measured_by_its_steps_or_extrapolated_from_the_longest(epochs: Epochs) -> None:
    seconds, how = epochs.allreduce(1.0)
    assert seconds.median == pytest.approx(10 * 0.12)
    assert how == "from 5 steps"
    seconds, how = epochs.allreduce(100.0)
    assert seconds.median == pytest.approx(10 * (100 * 0.1 + 0.22 - 0.2)), "its own sleep and the overhead at 2 x"
    assert how == "extrapolated from 2 x"


def test_the_papers_ratios_follow_from_its_seconds() -> None:
    """PAPERS' own arithmetic: 14.78 of 16 is 1.083, 13.56 of 15 is 1.106."""
    assert paper_ratios(1.0)[0] == pytest.approx(1.083, abs=1e-3)
    assert paper_ratios(1000.0)[0] == pytest.approx(1.106, abs=1e-3)
    assert paper_ratios(10.0)[1] == pytest.approx(11.51 / (18.04 / 15.1))
    assert paper_ratios(10_000.0)[1] is None
    assert paper_ratios(3.0) == (None, None)
    assert paper_ratios(1.5) == (None, None)


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Report:
    results = [records(rank) for rank in range(3)]
    monkeypatch.setattr(straggler, "run_ranks", lambda module, ranks, options: Job(results, "the command"))
    return straggler.BENCHMARK.run(OPTIONS)


def test_each_slowdown_is_judged_by_its_ratio_to_the_ideal(report: Report) -> None:
    assert [row.cells[straggler.SLOWDOWN] for row in report.rows] == ["1 x", "2 x", "100 x"]
    ratios = [row.cells[straggler.IDEAL] for row in report.rows]
    assert [ratio.median for ratio in ratios if isinstance(ratio, Spread)] == pytest.approx([1.05, 1.0, 1.005])
    assert [list(row.passes().values()) for row in report.rows] == [[False], [True], [True]]
    assert report.commands == ["the command"]
    assert report.settings == dataclasses.asdict(OPTIONS)


def test_the_picture_has_both_algorithms_the_target_and_units(report: Report) -> None:
    left, right = straggler.draw(report).axes
    assert left.get_legend_handles_labels()[1] == ["allreduce", "adpsgd"]
    assert "AD-PSGD in its paper (GPUs)" in right.get_legend_handles_labels()[1]
    assert any(line.get_ydata()[0] == straggler.LIMIT for line in right.get_lines())
    assert left.get_xlabel() == "slowdown of one rank"
    assert left.get_ylabel() == "time of an epoch ÷ ideal"
    assert left.get_yscale() == "log"
