"""The simulated convergence benchmarks, whole and small; what figures come out never decides a test."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.benchmark import Benchmark
from benchmarks.convergence import skew, speedup, staleness
from benchmarks.convergence.contestants import SKEWED, Contestant, missing, registered
from benchmarks.convergence.digits import BY_LABEL, CLASSES, load, share
from benchmarks.convergence.speedup import transient
from benchmarks.options import SkewOptions, SpeedupOptions, StalenessOptions
from benchmarks.report import Report
from benchmarks.spread import Spread


def run(benchmark: Benchmark[Any], options: Any, folder: Path) -> Report:
    report = benchmark.run(options)
    for row in report.rows:
        for cell in row.cells.values():
            assert not isinstance(cell, Spread) or all(map(math.isfinite, cell.values))
    benchmark.draw_into(report, folder)
    assert (folder / f"{benchmark.name}.png").stat().st_size > 5000
    return report


def test_skew(tmp_path: Path) -> None:
    options = SkewOptions(workers=2, models=("network",), skews=(BY_LABEL, "0.1"), hidden=4, rates=(0.1, 0.5), steps=4,
                          points=2, seeds=1)  # fmt: skip
    report = run(skew.BENCHMARK, options, tmp_path)
    assert len(report.rows) == 2 * len(registered(SKEWED))
    assert all(row.cells[skew.RATE] in (0.1, 0.5) for row in report.rows)
    published = {row.cells[skew.DATA]: row.cells[skew.PUBLISHED] for row in report.rows[1::2]}
    assert published[BY_LABEL] is None
    again = skew.BENCHMARK.run(options)
    assert [row.cells for row in again.rows] == [row.cells for row in report.rows]


def test_speedup(tmp_path: Path) -> None:
    options = SpeedupOptions(workers=(1, 4), rates=(0.02,), most=60, transient_workers=4, transient_steps=40, seeds=1)
    report = run(speedup.BENCHMARK, options, tmp_path)
    lines = [row.cells for row in report.rows if row.cells[speedup.WHAT] == speedup.TO_TARGET]
    assert [cells[speedup.WORKERS] for cells in lines] == [1.0, 4.0] * (len(lines) // 2)
    assert {cells[speedup.RATE] for cells in lines} == {0.02, 0.08}
    graphs = [row.cells for row in report.rows if row.cells[speedup.WHAT] == speedup.TRANSIENT]
    assert [cells[speedup.ALGORITHM] for cells in graphs] == ["dpsgd (ring)", "dpsgd (torus)", "dpsgd (exponential)"]


def test_staleness(tmp_path: Path) -> None:
    options = StalenessOptions(workers=3, slowdowns=(1.0, 1000.0), seconds=0.5, seeds=1)
    report = run(staleness.BENCHMARK, options, tmp_path)
    steps = {
        (row.cells[staleness.ALGORITHM], row.cells[staleness.SLOWDOWN]): row.cells[staleness.STEPS]
        for row in report.rows
    }
    without, slow = steps["adpsgd", 1.0], steps["adpsgd", 1000.0]
    waiting = steps["allreduce", 1000.0]
    assert isinstance(without, Spread)
    assert isinstance(slow, Spread)
    assert isinstance(waiting, Spread)
    assert without.median > slow.median >= 2 / 3 * without.median - 2
    assert waiting.median == 3.0, "everybody waits in the first step"


def test_a_transient_ends_where_the_errors_stay_near_the_base() -> None:
    base = 1 / np.arange(1, 1001)
    assert transient(base, base, 1.1) == 0
    assert transient(base * 2, base, 1.1) is None
    length = transient(base * (1 + 10 / np.arange(1, 1001)), base, 1.1)
    assert length == pytest.approx(100, rel=0.2)


def test_algorithms_that_are_not_there_are_named() -> None:
    some = (Contestant("dpsgd", "ring"), Contestant("no-such", settings={"tau": 2}))
    assert registered(some) == [some[0]]
    assert missing(some) == "Not registered in this version, and left out: no-such."
    assert missing(some[:1]) == "All algorithms took part."
    assert [one.label for one in some] == ["dpsgd (ring)", "no-such, tau=2"]


def test_digits_are_shared_out() -> None:
    train, test = load()
    assert (len(train.labels), len(test.labels), CLASSES) == (1440, 357, 10)
    for kind in (BY_LABEL, "0.1"):
        shares = share(train, 16, kind, seed=0)
        assert [len(one.labels) for one in shares] == [90] * 16
        assert max(np.bincount(one.labels).max() for one in shares) > 45
