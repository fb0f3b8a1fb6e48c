"""Per-rank metrics as JSON lines: what every step cost, waited for and exchanged (docs/metrics.md lists the fields).

The training thread owns the writer; the file is written by a thread of its own, at most a second behind.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hvd_gossip.observe.background import BackgroundWriter
from hvd_gossip.observe.counters import Counters

Record = dict[str, Any]

_TOTALS = ("exchanges", "bytes_sent", "bytes_received", "poisoned")


@dataclass
class _Sums:
    steps: int = 0
    step_seconds: float = 0.0
    compute_seconds: float = 0.0
    wait_seconds: float = 0.0
    slowest: float = 0.0

    def add(self, step: float, compute: float, wait: float) -> None:
        self.steps += 1
        self.step_seconds += step
        self.compute_seconds += compute
        self.wait_seconds += wait
        self.slowest = max(self.slowest, step)

    def means(self) -> Record:
        steps = max(1, self.steps)
        return {
            "step_seconds": self.step_seconds / steps,
            "compute_seconds": self.compute_seconds / steps,
            "wait_seconds": self.wait_seconds / steps,
        }


class NullMetrics:
    """Records nothing: the metrics of a run without `metrics_dir`."""

    def step(
        self,
        step_seconds: float,
        compute_seconds: float,
        wait_seconds: float,
        counters: Counters,
        consensus_distance: float | None = None,
    ) -> None: ...

    def event(self, kind: str, what: Mapping[str, Any]) -> None: ...

    def close(self, counters: Counters) -> None: ...


class MetricsWriter:
    """Writes `rank-<rank>.jsonl` in a directory: a start line, a line every `every` steps, a summary line.

    Args:
        directory: made if missing; an earlier run's file of this rank is overwritten.
        rank: this worker's.
        run: what the start line says about the run (algorithm, topology, size...), JSON-able.
        every: steps a line, at least 1.

    Raises:
        OSError: the file cannot be made.
        ValueError: `every` is below 1.
    """

    def __init__(self, directory: str | Path, rank: int, run: Mapping[str, Any] | None = None, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"metrics: a line every {every} steps is not possible; at least 1")
        self._every = every
        self._since_line, self._total = _Sums(), _Sums()
        self._start = time.perf_counter()
        self._writer: BackgroundWriter[Record] = BackgroundWriter(
            Path(directory) / file_name(rank), lambda record: json.dumps(record, default=str) + "\n"
        )
        who = {"rank": rank, "host": socket.gethostname(), "pid": os.getpid()}
        self._writer.append({"kind": "start", "time": time.time()} | who | dict(run or {}))

    def step(
        self,
        step_seconds: float,
        compute_seconds: float,
        wait_seconds: float,
        counters: Counters,
        consensus_distance: float | None = None,
    ) -> None:
        """Records one training step, at its end.

        Args:
            step_seconds: since the end of the step before.
            compute_seconds: the part of it that was spent outside communication.
            wait_seconds: the part of it in which the training thread waited for communication.
            counters: the algorithm's totals so far.
            consensus_distance: this worker's distance to the mean, if it was sampled at this step. It makes the step
                have a line, whatever `every`.
        """
        for sums in (self._since_line, self._total):
            sums.add(step_seconds, compute_seconds, wait_seconds)
        if self._since_line.steps >= self._every or consensus_distance is not None:
            self._write_step(counters, consensus_distance)

    def event(self, kind: str, what: Mapping[str, Any]) -> None:
        """Writes a line of its own kind, JSON-able."""
        self._writer.append({"kind": kind, "time": time.time(), "steps": self._total.steps, **what})

    def close(self, counters: Counters) -> None:
        """Writes what is left and the summary line. Further calls do nothing."""
        if self._since_line.steps:
            self._write_step(counters, None)
        seconds = time.perf_counter() - self._start
        summary = {"kind": "summary", "time": time.time(), "steps": self._total.steps, "seconds": seconds}
        totals = {"step_seconds_max": self._total.slowest, "wait_share": self._wait_share()} | _totals(counters)
        self._writer.append(summary | self._total.means() | totals)
        self._writer.close()

    def _wait_share(self) -> float:
        return self._total.wait_seconds / self._total.step_seconds if self._total.step_seconds else 0.0

    def _write_step(self, counters: Counters, consensus_distance: float | None) -> None:
        sums, self._since_line = self._since_line, _Sums()
        record = {"kind": "step", "time": time.time(), "step": self._total.steps, "steps": sums.steps} | sums.means()
        record |= _totals(counters) | _last_exchange(counters)
        if consensus_distance is not None:
            record["consensus_distance"] = consensus_distance if math.isfinite(consensus_distance) else None
        self._writer.append(record)


@dataclass
class RankMetrics:
    """What one rank wrote.

    Attributes:
        rank: whose.
        start: the start line.
        steps: a column a field of the step lines, each a float64 array of shape (lines,), NaN where a line lacks it.
        summary: the summary line; None if the process has not ended, or died.
    """

    rank: int
    start: Record
    steps: dict[str, np.ndarray] = field(default_factory=dict)
    summary: Record | None = None


def file_name(rank: int) -> str:
    """The name of a rank's file in the metrics directory."""
    return f"rank-{rank}.jsonl"


def read_metrics(directory: str | Path) -> dict[int, RankMetrics]:
    """Reads what all ranks of a run wrote, also while it runs (a line under way is left out).

    Returns:
        the metrics by rank, in the order of ranks; empty if there are none.

    Raises:
        ValueError: a line is not what `MetricsWriter` writes; the message names file and line.
    """
    found = [_read_rank(path) for path in Path(directory).glob("rank-*.jsonl")]
    return {metrics.rank: metrics for metrics in sorted((one for one in found if one), key=lambda one: one.rank)}


def read_json_lines(path: str | Path) -> list[Record]:
    """The records of a JSON-lines file, less a last line without its end (still being written).

    Raises:
        ValueError: a line is not a JSON object; the message names file and line.
    """
    complete = Path(path).read_text(encoding="utf-8").rpartition("\n")[0]
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(complete.splitlines(), 1)]


def _parse(line: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object, found {line[:40]!r}")
    return record


def _read_rank(path: Path) -> RankMetrics | None:
    records = read_json_lines(path)
    if not records:
        return None
    if records[0].get("kind") != "start" or "rank" not in records[0]:
        raise ValueError(f"{path}:1: not a metrics file of hvd-gossip: no start line")
    lines = [record for record in records if record.get("kind") == "step"]
    summary = next((record for record in records if record.get("kind") == "summary"), None)
    return RankMetrics(int(records[0]["rank"]), records[0], _columns(lines), summary)


def _columns(lines: list[Record]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for line in lines for name in line if name != "kind")
    return {name: np.array([_number(line.get(name)) for line in lines]) for name in names}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _totals(counters: Counters) -> Record:
    return {name: getattr(counters, name) for name in _TOTALS}


def _last_exchange(counters: Counters) -> Record:
    peer = counters.last_peer
    return {"last_peer": peer, "staleness": counters.staleness.get(peer)}
