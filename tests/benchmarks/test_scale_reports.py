"""The tables of scale: their rows, what must hold in any of them, and how links are fitted to measured allreduces."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from benchmarks.job import Job
from benchmarks.options import CalibrationOptions, EpochsOptions, FaultsOptions, HeadlinesOptions, RingsOptions
from benchmarks.report import Report
from benchmarks.scale import __main__ as every
from benchmarks.scale import calibration, epochs, faults, headlines, rings
from benchmarks.scale.calibration import fit_links
from benchmarks.scale.jitter import SAMPLE, empirical, mean_of_slowest, measure_steps, measured_jitter
from benchmarks.scale.prediction import CLOSED_FORM, algorithms
from benchmarks.spread import Spread
from hvd_gossip.transport.simulated_links import Links, draw


def cells(report: Report, column: str) -> list[Any]:
    return [row.cells[column] for row in report.rows]


def test_an_empirical_distribution_draws_its_values_alike() -> None:
    stream, drawn = random.Random(1), empirical([0.5, 1.0, 1.5])
    values = [draw(drawn, stream) for _ in range(3000)]
    assert set(values) == {0.5, 1.0, 1.5}
    assert values.count(1.5) == pytest.approx(1000, rel=0.15)
    with pytest.raises(ValueError, match="positive"):
        empirical([1.0, 0.0])


def test_the_stored_jitter_is_of_mean_one_and_says_how_it_was_measured() -> None:
    document = json.loads(SAMPLE.read_text())
    assert document["command"] == "python -m benchmarks.scale.jitter"
    assert sum(document["factors"]) / len(document["factors"]) == pytest.approx(1.0, abs=1e-3)
    assert 1.0 < mean_of_slowest(measured_jitter(), 16) <= max(document["factors"])


def test_steps_are_measured_after_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.scale.jitter.STEPS", 3)
    assert len(measure_steps()) == 3
    assert min(measure_steps()) > 0


def test_rings_compare_closed_form_and_events() -> None:
    report = rings.measure(RingsOptions(sizes=(4,), megabytes=8.0))
    assert len(report.rows) == 5
    assert not report.missed
    assert rings.draw(report).axes


def test_epochs_have_a_row_an_algorithm_and_shrink_with_workers() -> None:
    report = epochs.measure(EpochsOptions(sizes=(4, 16), largest=0, steps=3, networks=("infiniband-100g", "wide-area")))
    assert [row.cells["algorithm"] for row in report.rows] == algorithms() * 2
    fast = [row.cells for row in report.rows if row.cells["network"] == "infiniband-100g"]
    assert all(one["16 workers (s)"] < one["4 workers (s)"] for one in fast)  # type: ignore[operator]
    assert cells(report, epochs.GAIN)[0] == 1.0
    assert max(cells(report, epochs.GAIN)[-len(algorithms()) :]) > 2
    assert epochs.draw(report).axes


def test_faults_hurt_the_barrier_and_not_the_gossip_without_one() -> None:
    report = faults.measure(FaultsOptions(size=16, steps=8))
    shares = dict(zip(cells(report, "algorithm"), cells(report, faults.ONE_SLOW), strict=True))
    assert shares[CLOSED_FORM] < 25
    assert shares["adpsgd"] > 85
    assert faults.draw(report).axes


def test_headlines_have_each_claim_with_its_published_figure() -> None:
    report = headlines.measure(HeadlinesOptions(steps=2))
    assert set(cells(report, "claim")) == set(headlines.PUBLISHED)
    gains = dict(zip(cells(report, "setting"), cells(report, "ours"), strict=True))
    assert gains["one worker 5 x slower"] > gains["network of their own"] > 1
    assert all(cell is None or " / " in cell for cell in cells(report, headlines.HOURS))
    assert headlines.draw(report).axes


@pytest.mark.parametrize(("latency", "bandwidth"), [(20e-6, 1e9), (1e-3, 2e8)])
def test_links_are_found_from_two_allreduces(latency: float, bandwidth: float) -> None:
    links = Links(latency, bandwidth)
    measured = [(nbytes, calibration.allreduce_seconds(4, nbytes, links)) for nbytes in (4096, 1 << 20)]
    assert fit_links(4, *measured).route(0, 1) == pytest.approx((latency, 1 / bandwidth), rel=1e-2)


def test_calibration_judges_each_algorithm_by_its_own_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    options = CalibrationOptions(ranks=(2,), algorithms=("adpsgd", "allreduce"), repetitions=2)
    links = Links(1e-4, 1e9)
    kinds = itertools.product(range(2), options.algorithms, (("plain", 0.05), ("distributed", 0.051)))
    records = [
        {
            "repetition": repetition,
            "algorithm": algorithm,
            "kind": kind,
            "step_seconds": seconds,
            "cpu_share": 0.03,
            "training_cpu_share": 0.02,
        }
        for repetition, algorithm, (kind, seconds) in kinds
    ]
    rank = {
        "nbytes": 1 << 20, "records": records, "small_cpu": 1e-4, "large_cpu": 1e-3,
        "small": [calibration.allreduce_seconds(2, options.small_bytes, links)] * 3,
        "large": [calibration.allreduce_seconds(2, options.large_bytes, links)] * 3,
    }  # fmt: skip
    monkeypatch.setattr(calibration, "run_ranks", lambda name, ranks, options, **more: Job([rank] * ranks, name))
    report = calibration.measure(options)
    ratios = dict(zip(cells(report, "algorithm"), cells(report, calibration.RATIO), strict=True))
    assert isinstance(ratios["adpsgd"], Spread)
    assert ratios["adpsgd"].median == pytest.approx(0.05 / 0.051, rel=0.02)
    assert ratios["allreduce"].median > ratios["adpsgd"].median
    assert calibration.draw(report).axes


def test_all_benchmarks_of_scale_have_modules_of_their_names() -> None:
    names = [benchmark.name for benchmark in every.BENCHMARKS]
    assert names == ["scale.rings", "scale.headlines", "scale.calibration", "scale.faults", "scale.epochs"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_calibration_runs_on_real_ranks() -> None:
    report = calibration.measure(CalibrationOptions(ranks=(2,), step_ms=10.0, megabytes=0.1, steps=4, repetitions=1))
    assert all(row.cells[calibration.MEASURED].median > 0 for row in report.rows)  # type: ignore[union-attr]
