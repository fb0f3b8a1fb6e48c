"""Metrics: what is written is what was measured, and what is read is what was written."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvd_gossip.observe.counters import Counters
from hvd_gossip.observe.metrics import MetricsWriter, NullMetrics, RankMetrics, file_name, read_json_lines, read_metrics


def write_steps(directory: Path, every: int = 1, steps: int = 5, rank: int = 3) -> RankMetrics:
    """Step k takes k seconds, of which k/4 are waited; each makes one exchange with peer k."""
    counters = Counters()
    writer = MetricsWriter(directory, rank, {"algorithm": "adpsgd"}, every)
    for step in range(1, steps + 1):
        counters.exchanges, counters.last_peer, counters.bytes_sent = step, step, 100 * step
        counters.bytes_received, counters.staleness[step] = 50 * step, 2 * step
        writer.step(float(step), 0.75 * step, 0.25 * step, counters)
    writer.close(counters)
    return read_metrics(directory)[rank]


def test_line_a_step_holds_what_was_measured(tmp_path: Path) -> None:
    metrics = write_steps(tmp_path)
    expected = {
        "step": [1, 2, 3, 4, 5], "steps": [1] * 5, "step_seconds": [1, 2, 3, 4, 5],
        "compute_seconds": [0.75, 1.5, 2.25, 3, 3.75], "wait_seconds": [0.25, 0.5, 0.75, 1, 1.25],
        "exchanges": [1, 2, 3, 4, 5], "bytes_sent": [100, 200, 300, 400, 500], "bytes_received": [50, 100, 150, 200, 250],
        "poisoned": [0] * 5, "last_peer": [1, 2, 3, 4, 5], "staleness": [2, 4, 6, 8, 10],
    }  # fmt: skip
    assert {name: column.tolist() for name, column in metrics.steps.items() if name != "time"} == expected
    assert np.all(np.diff(metrics.steps["time"]) >= 0)


def test_line_every_k_steps_holds_means_and_the_rest_is_not_lost(tmp_path: Path) -> None:
    steps = write_steps(tmp_path, every=2).steps
    assert steps["step"].tolist() == [2, 4, 5]
    assert steps["steps"].tolist() == [2, 2, 1]
    assert steps["step_seconds"].tolist() == [1.5, 3.5, 5.0]
    assert float(steps["step_seconds"] @ steps["steps"]) == 15.0


@pytest.mark.parametrize("every", [1, 2, 100])
def test_summary_is_of_all_steps(tmp_path: Path, every: int) -> None:
    summary = write_steps(tmp_path, every).summary
    assert summary is not None
    assert (summary["steps"], summary["step_seconds"], summary["step_seconds_max"]) == (5, 3.0, 5.0)
    assert summary["wait_share"] == pytest.approx(0.25)
    assert (summary["exchanges"], summary["bytes_sent"], summary["bytes_received"]) == (5, 500, 250)
    assert summary["seconds"] >= 0


def test_start_line_says_whose_and_of_which_run(tmp_path: Path) -> None:
    start = write_steps(tmp_path).start
    assert (start["kind"], start["rank"], start["algorithm"]) == ("start", 3, "adpsgd")
    assert start["host"]
    assert start["pid"] > 0


def test_run_without_steps_has_a_summary_of_zeros(tmp_path: Path) -> None:
    metrics = write_steps(tmp_path, steps=0)
    assert metrics.steps == {}
    assert metrics.summary is not None
    assert (metrics.summary["steps"], metrics.summary["step_seconds"], metrics.summary["wait_share"]) == (0, 0, 0)


def test_sampled_consensus_distance_has_a_line_of_its_own(tmp_path: Path) -> None:
    writer, counters = MetricsWriter(tmp_path, 0, every=10), Counters()
    for distance in (None, 0.5, None, math.inf):
        writer.step(1.0, 1.0, 0.0, counters, distance)
    writer.close(counters)
    steps = read_metrics(tmp_path)[0].steps
    assert steps["step"].tolist() == [2, 4]
    assert steps["consensus_distance"][0] == 0.5
    assert math.isnan(steps["consensus_distance"][1])
    assert "Infinity" not in (tmp_path / file_name(0)).read_text()


def test_before_the_first_exchange_there_is_no_staleness(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer.step(1.0, 1.0, 0.0, Counters())
    writer.close(Counters())
    line = read_json_lines(tmp_path / file_name(0))[1]
    assert (line["last_peer"], line["staleness"]) == (-1, None)


def test_closing_twice_writes_one_summary(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, 0)
    writer.close(Counters())
    writer.close(Counters())
    assert [line["kind"] for line in read_json_lines(tmp_path / file_name(0))] == ["start", "summary"]


def test_ranks_come_in_order_and_old_files_are_overwritten(tmp_path: Path) -> None:
    for rank in (10, 2, 0, 2):
        write_steps(tmp_path, rank=rank, steps=rank + 1)
    read = read_metrics(tmp_path)
    assert list(read) == [0, 2, 10]
    assert [len(metrics.steps["step"]) for metrics in read.values()] == [1, 3, 11]


def test_reads_a_run_under_way_without_the_line_being_written(tmp_path: Path) -> None:
    write_steps(tmp_path)
    path = tmp_path / file_name(3)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20])
    metrics = read_metrics(tmp_path)[3]
    assert metrics.steps["step"].tolist() == [1, 2]
    assert metrics.summary is None
    path.write_text(lines[0][:10])
    assert read_metrics(tmp_path) == {}


def test_empty_directory_has_no_metrics(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"kind": "step"}], r"rank-0\.jsonl:1: not a metrics file"),
        ([{"kind": "start", "rank": 0}, "text"], r"rank-0\.jsonl:2: expected a JSON object, found '\"text\"'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, lines: list[Any], message: str) -> None:
    (tmp_path / file_name(0)).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path)


def test_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / file_name(0)).write_text('{"kind": "start", "rank": 0}\n{"kind"\n{}\n')
    with pytest.raises(ValueError, match=r"rank-0\.jsonl:2: not JSON"):
        read_metrics(tmp_path)


def test_less_than_one_step_a_line_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every 0 steps"):
        MetricsWriter(tmp_path, 0, every=0)
    assert list(tmp_path.iterdir()) == []


def test_null_metrics_takes_the_same_calls() -> None:
    metrics = NullMetrics()
    metrics.step(1.0, 1.0, 0.0, Counters(), 0.1)
    metrics.close(Counters())
