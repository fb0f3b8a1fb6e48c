"""Horovod's timeline (`HOROVOD_TIMELINE`): a Chrome trace for chrome://tracing and ui.perfetto.dev.

The file is a JSON array of trace events, written as they happen; `close` completes it. The viewers accept an array
without its end, so the trace of a process that was killed opens too.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hvd_gossip.observe.background import BackgroundWriter

Arguments = Mapping[str, Any] | None
"""JSON-able values that the viewer shows with an event."""

DYNAMIC = "DYNAMIC"
"""Horovod's value of HOROVOD_TIMELINE that records nothing until `hvd.start_timeline(file)`."""


class TimelineLike(Protocol):
    """What `Timeline` and `NullTimeline` can do. All methods may be called from any thread; times are
    `time.perf_counter()` seconds. A lane is a row of the trace, named after what happens there ("engine", a tensor)."""

    def span(self, lane: str, name: str, start: float, end: float, args: Arguments = None) -> None:
        """Something that took from `start` to `end`."""

    def begin(self, lane: str, name: str, args: Arguments = None) -> None:
        """Something starts now; visible even if it never ends."""

    def end(self, lane: str) -> None:
        """What was begun last on the lane ends now."""

    def instant(self, lane: str, name: str, args: Arguments = None) -> None:
        """Something happens now, at one point in time."""

    def counter(self, name: str, value: float) -> None:
        """A quantity has this value from now on."""

    def close(self) -> None:
        """Completes the file. Later events are dropped."""


class NullTimeline:
    """Records nothing: the timeline of a run, or a rank, that writes none."""

    def span(self, lane: str, name: str, start: float, end: float, args: Arguments = None) -> None: ...

    def begin(self, lane: str, name: str, args: Arguments = None) -> None: ...

    def end(self, lane: str) -> None: ...

    def instant(self, lane: str, name: str, args: Arguments = None) -> None: ...

    def counter(self, name: str, value: float) -> None: ...

    def close(self) -> None: ...


class Timeline:
    """One rank's trace file; the methods are those of `TimelineLike`.

    Timestamps are microseconds since the Unix epoch, so that traces of ranks with a common clock can be merged.

    Args:
        path: the file, overwritten.
        rank: becomes the trace's process.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: str | Path, rank: int) -> None:
        self._rank = rank
        self._epoch = time.time() - time.perf_counter()
        self._lanes: dict[str, int] = {}
        self._lock = threading.Lock()
        self._writer: BackgroundWriter[dict[str, Any]] = BackgroundWriter(
            Path(path), lambda event: json.dumps(event, default=str) + ",\n", head="[\n", tail=self._closing
        )
        self._describe("process_name", 0, f"rank {rank}")

    def span(self, lane: str, name: str, start: float, end: float, args: Arguments = None) -> None:
        self._add("X", lane, name, start, args, dur=max(0.0, round((end - start) * 1e6, 3)))

    def begin(self, lane: str, name: str, args: Arguments = None) -> None:
        self._add("B", lane, name, time.perf_counter(), args)

    def end(self, lane: str) -> None:
        self._add("E", lane, "", time.perf_counter(), None)

    def instant(self, lane: str, name: str, args: Arguments = None) -> None:
        self._add("i", lane, name, time.perf_counter(), args, s="t")

    def counter(self, name: str, value: float) -> None:
        self._add("C", name, name, time.perf_counter(), {"value": value})

    def close(self) -> None:
        self._writer.close()

    def _closing(self) -> str:
        # An array's last element takes no comma: the closing event is written without one.
        event = {"name": "timeline closed", "ph": "i", "s": "p", "pid": self._rank, "tid": 0}
        return json.dumps(event | {"ts": self._microseconds(time.perf_counter())}) + "\n]\n"

    def _add(self, phase: str, lane: str, name: str, at: float, args: Arguments, **more: Any) -> None:
        event = {"name": name, "ph": phase, "ts": self._microseconds(at), "pid": self._rank, "tid": self._lane(lane)}
        if args:
            event["args"] = dict(args)
        self._writer.append(event | more)

    def _microseconds(self, at: float) -> float:
        return round((at + self._epoch) * 1e6, 3)

    def _lane(self, name: str) -> int:
        number = self._lanes.get(name)
        return self._open_lane(name) if number is None else number

    def _open_lane(self, name: str) -> int:
        with self._lock:
            if name not in self._lanes:
                number = len(self._lanes) + 1
                self._describe("thread_name", number, name)
                self._lanes[name] = number
            return self._lanes[name]

    def _describe(self, kind: str, lane: int, name: str) -> None:
        self._writer.append({"name": kind, "ph": "M", "pid": self._rank, "tid": lane, "args": {"name": name}})


def open_timeline(path: str | None, rank: int) -> Timeline | NullTimeline:
    """The timeline that HOROVOD_TIMELINE's value asks of this rank.

    As with Horovod, a plain path is rank 0's and the other ranks record nothing; a path that holds `{rank}`, such as
    `trace-{rank}.json`, gives every rank its own file. None, "" and "DYNAMIC" record nothing.

    Raises:
        OSError: the file cannot be made.
    """
    if not path or path == DYNAMIC:
        return NullTimeline()
    if "{rank}" in path:
        return Timeline(path.replace("{rank}", str(rank)), rank)
    return Timeline(path, rank) if rank == 0 else NullTimeline()
