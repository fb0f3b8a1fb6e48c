"""Horovod, "Analyze Performance": the timeline, started and stopped by the script (HOROVOD_TIMELINE=DYNAMIC)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.case import Cases, ours
from tests.conformance.framework import Framework

CASES = Cases()


@contextmanager
def _folder(f: Framework) -> Iterator[Path]:
    """One folder for all ranks."""
    with tempfile.TemporaryDirectory() as mine:
        yield Path(f.hvd.broadcast_object(mine))
        f.hvd.barrier()


@CASES.add()
def a_timeline_shows_negotiation_and_operation_of_each_tensor(f: Framework) -> None:
    """Timeline: negotiation and processing of each tensor, in a file that chrome://tracing opens; complete once stopped."""
    with _folder(f) as folder:
        path = folder / "timeline.json"
        f.hvd.start_timeline(str(path))
        f.hvd.barrier()
        f.hvd.allreduce(ours(f, 3), name="watched")
        f.hvd.allgather(ours(f, 3), name="gathered")
        f.hvd.stop_timeline()
        f.hvd.barrier()
        events = json.loads(path.read_text())
        text = json.dumps(events)
        for word in ("NEGOTIATE_ALLREDUCE", "NEGOTIATE_ALLGATHER", "ALLREDUCE", "ALLGATHER", "watched", "gathered"):
            assert word in text, word


@CASES.add()
def a_timeline_is_recorded_on_rank_0_alone(f: Framework) -> None:
    """Timeline: only recorded on rank 0, but contains information about all workers."""
    with _folder(f) as folder:
        f.hvd.start_timeline(str(folder / f"of {f.hvd.rank()}.json"))
        f.hvd.allreduce(ours(f, 3), name="watched")
        f.hvd.stop_timeline()
        f.hvd.barrier()
        assert [path.name for path in folder.iterdir()] == ["of 0.json"]


@CASES.add()
def a_timeline_marks_cycles_when_asked_to(f: Framework) -> None:
    """Timeline, "Adding cycle markers": records the moment when each cycle starts; not by default."""
    with _folder(f) as folder:
        for marked in (False, True):
            path = folder / f"{marked}.json"
            f.hvd.start_timeline(str(path), mark_cycles=marked)
            f.hvd.barrier()
            f.hvd.allreduce(ours(f, 3), name="watched")
            f.hvd.stop_timeline()
            f.hvd.barrier()
            assert ("CYCLE" in path.read_text().upper()) is marked


@CASES.add()
def stopping_a_timeline_that_is_not_there_does_nothing(f: Framework) -> None:
    """API, stop_timeline: stops the active timeline recording and closes the file."""
    f.hvd.stop_timeline()
    f.hvd.stop_timeline()
