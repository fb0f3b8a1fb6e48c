"""Horovod's timeline (`HOROVOD_TIMELINE`): a Chrome trace for chrome://tracing and ui.perfetto.dev.

The file is a JSON array of trace events, written as they happen; `close` completes it. The viewers accept an array
without its end, so the trace of a process that was killed opens too.

As in Horovod's, each tensor is a row (a "process" of the trace), with its negotiation, NEGOTIATE_ALLREDUCE, in which a tick
named after its rank marks each rank's readiness, and then the operation, ALLREDUCE, with what it consists of below it. Beside
tensors there are a row for the training thread and one a peer that the algorithm exchanges parameters with.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvd_gossip.observe.background import BackgroundWriter

Arguments = Mapping[str, Any] | None
"""JSON-able values that the viewer shows with an event."""

DYNAMIC = "DYNAMIC"
"""Horovod's value of HOROVOD_TIMELINE that records nothing until `hvd.start_timeline(file)`."""
CYCLE = "CYCLE_START"
"""Horovod's marker of a cycle, that is of the controller answering requests; its tensor is ""."""
ROWS_OF_RANK = 1 << 20
"""Rows of ranks with files of their own are numbered apart by so much, so that the files can be joined."""


class Timeline:
    """One rank's trace file. All methods may be called from any thread; times are `time.perf_counter()` seconds.

    Timestamps in the file are microseconds since the Unix epoch, so that traces of ranks with a common clock can be joined.

    Args:
        path: the file, overwritten.
        rank: this rank, if it is to be told apart from others' in the names of the rows; None: it is not.
        mark_cycles: whether cycles are marked.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: str | Path, rank: int | None = None, mark_cycles: bool = False) -> None:
        self._rank, self._mark_cycles = rank, mark_cycles
        self._epoch = time.time() - time.perf_counter()
        self._rows: dict[str, int] = {}
        self._tracks: dict[tuple[int, str], int] = {}
        self._begun: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._writer: BackgroundWriter[dict[str, Any]] = BackgroundWriter(
            Path(path), lambda event: json.dumps(event, default=str) + ",\n", head="[\n", tail=self._closing
        )

    def trace(self, tensor: str, activity: str, start: float, end: float | None) -> None:
        """An activity of a collective operation; without an `end`, one that has only begun, and whose end is told later.

        An activity named after a rank is a tick: that rank is ready.
        """
        if activity == CYCLE:
            if self._mark_cycles:
                self._add("i", {"pid": 0, "tid": 0, "s": "g"}, activity, start)
        elif end is None:
            self._begun.add((tensor, activity))
            self._add("B", self._place(tensor), activity, start)
        elif (tensor, activity) in self._begun:
            self._begun.discard((tensor, activity))
            self._add("E", self._place(tensor), activity, end)
        else:
            self.span(tensor, activity, start, end)

    def span(self, row: str, name: str, start: float, end: float, args: Arguments = None, track: str = "") -> None:
        """Something that took from `start` to `end`; what overlaps without one holding the other needs its own track."""
        place = self._place(row, track) | {"dur": max(0, self._microseconds(end) - self._microseconds(start))}
        self._add("X", place | ({"args": dict(args)} if args else {}), name, start)

    def close(self) -> None:
        """Completes the file. Later events are dropped."""
        self._writer.close()

    def _closing(self) -> str:
        # An array's last element takes no comma: the closing event is written without one.
        event = {"name": "timeline closed", "ph": "i", "s": "g", "pid": 0, "tid": 0}
        return json.dumps(event | {"ts": self._microseconds(time.perf_counter())}) + "\n]\n"

    def _add(self, phase: str, more: dict[str, Any], name: str, at: float) -> None:
        self._writer.append({"name": name, "ph": phase, "ts": self._microseconds(at), **more})

    def _microseconds(self, at: float) -> int:
        # Whole ones: fractions at this distance from the epoch are so coarse that events would overlap that only touch.
        return round((at + self._epoch) * 1e6)

    def _place(self, row: str, track: str = "") -> dict[str, Any]:
        pid = self._rows.get(row)
        if pid is None:
            pid = self._open_row(row)
        if not track:
            return {"pid": pid, "tid": 0}
        tid = self._tracks.get((pid, track))
        return {"pid": pid, "tid": self._open_track(pid, track) if tid is None else tid}

    def _open_row(self, row: str) -> int:
        with self._lock:
            if row not in self._rows:
                number = len(self._rows) + 1
                pid = number + (self._rank or 0) * ROWS_OF_RANK
                name = row if self._rank is None else f"{row} [rank {self._rank}]"
                self._describe("process_name", pid, 0, {"name": name})
                self._describe("process_sort_index", pid, 0, {"sort_index": pid})
                self._rows[row] = pid
            return self._rows[row]

    def _open_track(self, pid: int, track: str) -> int:
        with self._lock:
            if (pid, track) not in self._tracks:
                tid = len(self._tracks) + 1
                self._describe("thread_name", pid, tid, {"name": track})
                self._tracks[pid, track] = tid
            return self._tracks[pid, track]

    def _describe(self, kind: str, pid: int, tid: int, args: Mapping[str, object]) -> None:
        self._writer.append({"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": args})


class Recorder:
    """Where a process's events go: to a timeline while one is being recorded, which may begin and end at any time.

    Args:
        setting: HOROVOD_TIMELINE's value. A file is recorded from now on: as with Horovod rank 0's, the other ranks
            recording nothing; but a path that holds `{rank}`, such as `trace-{rank}.json`, gives every rank its own file.
            DYNAMIC: nothing before `start`. Empty: nothing ever.
        rank: this rank.
        mark_cycles: HOROVOD_TIMELINE_MARK_CYCLES.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, setting: str, rank: int, mark_cycles: bool = False) -> None:
        self._rank = rank
        self._timeline: Timeline | None = None
        self.enabled = bool(setting)
        if setting and setting != DYNAMIC:
            self.start(setting, mark_cycles)

    def start(self, path: str, mark_cycles: bool = False) -> None:
        """Begins a recording; one that is under way is completed first.

        Raises:
            ValueError: nothing can be recorded, because HOROVOD_TIMELINE was not set at `init` (Horovod's error).
            OSError: the file cannot be made.
        """
        if not self.enabled:
            raise ValueError("Set HOROVOD_TIMELINE=DYNAMIC to enable dynamic timeline usage.")
        self.stop()
        if "{rank}" in path:
            self._timeline = Timeline(path.replace("{rank}", str(self._rank)), self._rank, mark_cycles)
        elif self._rank == 0:
            self._timeline = Timeline(path, mark_cycles=mark_cycles)

    def stop(self) -> None:
        """Completes the recording that is under way, if one is."""
        timeline, self._timeline = self._timeline, None
        if timeline is not None:
            timeline.close()

    def trace(self, tensor: str, activity: str, start: float, end: float | None) -> None:
        """See `Timeline.trace`."""
        timeline = self._timeline
        if timeline is not None:
            timeline.trace(tensor, activity, start, end)

    def span(self, row: str, name: str, start: float, end: float, args: Arguments = None, track: str = "") -> None:
        """See `Timeline.span`."""
        timeline = self._timeline
        if timeline is not None:
            timeline.span(row, name, start, end, args, track)
