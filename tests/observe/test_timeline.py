"""The timeline: a trace that is whole JSON after close and repairable before; its events are as Horovod writes them."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.observe.timeline import ROWS_OF_RANK, Recorder, Timeline

Event = dict[str, Any]


def read(path: Path) -> list[Event]:
    events: list[Event] = json.loads(path.read_text())
    return events


def of_phase(events: list[Event], *phases: str) -> list[Event]:
    return [event for event in events if event["ph"] in phases]


def rows(events: list[Event]) -> dict[int, str]:
    return {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}


def recorded(path: Path, *, rank: int | None = None, mark_cycles: bool = False, **calls: Any) -> list[Event]:
    """What a timeline's file holds after the calls, each METHOD=[arguments...]."""
    timeline = Timeline(path, rank, mark_cycles)
    for method, arguments in calls.items():
        for each in arguments:
            getattr(timeline, method)(*each)
    timeline.close()
    return read(path)


def test_a_tensor_is_a_row_in_the_order_of_first_appearance(tmp_path: Path) -> None:
    spans = [("b", "ALLREDUCE", 1.0, 2.0), ("a", "ALLREDUCE", 1.0, 2.0), ("b", "QUEUE", 1.0, 1.5)]
    events = recorded(tmp_path / "t.json", trace=spans)
    assert rows(events) == {1: "b", 2: "a"}
    order = {event["pid"]: event["args"]["sort_index"] for event in events if event["name"] == "process_sort_index"}
    assert order == {1: 1, 2: 2}
    assert [(event["pid"], event["name"]) for event in of_phase(events, "X")] == [
        (1, "ALLREDUCE"),
        (2, "ALLREDUCE"),
        (1, "QUEUE"),
    ]


def test_a_negotiation_with_its_ticks_is_as_horovod_writes_it(tmp_path: Path) -> None:
    calls = [
        ("grad", "NEGOTIATE_ALLREDUCE", 1.0, None),
        ("grad", "0", 1.0, 1.0),
        ("grad", "2", 1.5, 1.5),
        ("grad", "NEGOTIATE_ALLREDUCE", 1.0, 2.0),
    ]
    begin, zero, two, end = of_phase(recorded(tmp_path / "t.json", trace=calls), "B", "X", "E")
    assert (begin["ph"], begin["name"]) == ("B", "NEGOTIATE_ALLREDUCE")
    assert [(tick["name"], tick["dur"]) for tick in (zero, two)] == [("0", 0), ("2", 0)]
    assert end["ph"] == "E"
    assert end["ts"] - begin["ts"] == pytest.approx(1e6, abs=1)
    assert {event["pid"] for event in (begin, zero, two, end)} == {1}


def test_the_next_negotiation_of_the_name_begins_anew(tmp_path: Path) -> None:
    once = [("x", "NEGOTIATE_BROADCAST", 1.0, None), ("x", "NEGOTIATE_BROADCAST", 1.0, 2.0)]
    assert [event["ph"] for event in of_phase(recorded(tmp_path / "t.json", trace=once * 2), "B", "E")] == [*"BEBE"]


def test_what_began_before_the_recording_is_one_event(tmp_path: Path) -> None:
    (event,) = of_phase(recorded(tmp_path / "t.json", trace=[("x", "NEGOTIATE_ALLREDUCE", 1.0, 3.0)]), "X", "E")
    assert (event["ph"], event["dur"]) == ("X", 2_000_000)


@pytest.mark.parametrize("mark", [False, True])
def test_cycles_are_marked_on_request(mark: bool, tmp_path: Path) -> None:
    events = recorded(tmp_path / "t.json", mark_cycles=mark, trace=[("", "CYCLE_START", 1.0, 1.0)])
    marks = [event for event in of_phase(events, "i") if event["name"] == "CYCLE_START"]
    assert [(event["s"], event["pid"]) for event in marks] == ([("g", 0)] if mark else [])
    assert rows(events) == {}


def test_spans_on_tracks_of_a_row(tmp_path: Path) -> None:
    spans = [
        ("peer 3", "SEND", 1.0, 2.0, {"bytes": 8}, "SEND"),
        ("peer 3", "RECEIVE", 1.5, 2.5, {"bytes": 9}, "RECEIVE"),
        ("peer 3", "SEND", 3.0, 4.0, None, "SEND"),
    ]
    events = recorded(tmp_path / "t.json", span=spans)
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    seen = [(event["name"], tracks[event["tid"]], event.get("args")) for event in of_phase(events, "X")]
    assert seen == [("SEND", "SEND", {"bytes": 8}), ("RECEIVE", "RECEIVE", {"bytes": 9}), ("SEND", "SEND", None)]
    assert rows(events) == {1: "peer 3"}


def test_times_are_microseconds_since_the_epoch(tmp_path: Path) -> None:
    before, start = time.time(), time.perf_counter()
    spans = [("engine", "first", start, start + 1), ("engine", "later", start + 2, start + 2)]
    first, later = of_phase(recorded(tmp_path / "trace.json", span=spans), "X")
    assert later["ts"] - first["ts"] == pytest.approx(2e6, abs=1)
    assert before - 1 <= first["ts"] / 1e6 <= time.time() + 1
    assert (first["dur"], later["dur"]) == (pytest.approx(1e6, abs=1), 0)


def test_span_that_ends_before_it_starts_has_no_negative_length(tmp_path: Path) -> None:
    assert of_phase(recorded(tmp_path / "t.json", span=[("engine", "odd", 2.0, 1.0)]), "X")[0]["dur"] == 0


@settings(max_examples=10)  # each waits for the writer's thread
@given(st.lists(st.floats(0, 1e-4), min_size=3, max_size=30))
def test_events_that_only_touch_do_not_overlap(lengths: list[float]) -> None:
    """Viewers show what overlaps in the wrong row, or not at all."""
    bounds = [1000 + at for at in accumulate(lengths)]
    with tempfile.TemporaryDirectory() as folder:
        spans = [("row", "part", start, end) for start, end in pairwise(bounds)]
        events = of_phase(recorded(Path(folder, "t.json"), span=[*spans, ("row", "whole", bounds[0], bounds[-1])]), "X")
    *parts, whole = events
    assert all(one["ts"] + one["dur"] == two["ts"] for one, two in pairwise(parts))
    assert whole["ts"] == parts[0]["ts"]
    assert whole["ts"] + whole["dur"] == parts[-1]["ts"] + parts[-1]["dur"]


def test_threads_share_rows_and_lose_no_event(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "trace.json")

    def work(thread: int) -> None:
        for index in range(500):
            timeline.span(f"row {index % 7}", f"{thread}/{index}", 0.0, 1.0, track=f"track {index % 3}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timeline.close()
    events = read(tmp_path / "trace.json")
    assert {event["name"] for event in of_phase(events, "X")} == {f"{t}/{i}" for t in range(4) for i in range(500)}
    assert sorted(rows(events).values()) == [f"row {number}" for number in range(7)]
    names = [(event["pid"], event["args"]["name"]) for event in events if event["name"] == "thread_name"]
    assert len(names) == len(set(names)) == 21


def test_killed_process_leaves_an_array_that_only_lacks_its_end(tmp_path: Path) -> None:
    """Of a tensor that waits for ever, the trace tells that, and for which ranks (horovod#3886: a file that was never whole)."""
    program = (
        "import os, sys, pathlib; from hvd_gossip.observe.timeline import Timeline\n"
        "timeline = Timeline(sys.argv[1])\n"
        "timeline.trace('grad', 'NEGOTIATE_ALLREDUCE', 1.0, None)\n"
        "while 'NEGOTIATE' not in pathlib.Path(sys.argv[1]).read_text(): pass\n"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "trace.json"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=150).returncode == -9
    events = json.loads(path.read_text().rstrip().removesuffix(",") + "]")
    assert [event["name"] for event in of_phase(events, "B")] == ["NEGOTIATE_ALLREDUCE"]


def test_interpreter_exit_completes_the_array(tmp_path: Path) -> None:
    program = "import sys; from hvd_gossip.observe.timeline import Timeline; Timeline(sys.argv[1]).span('a', 'b', 0, 1)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "trace.json")], check=True, timeout=150)
    events = read(tmp_path / "trace.json")
    assert [event["name"] for event in of_phase(events, "X", "i")] == ["b", "timeline closed"]


def test_odd_names_and_arguments_stay_valid_json(tmp_path: Path) -> None:
    events = recorded(tmp_path / "t.json", span=[('a "quoted"\nrow', "näme", 0.0, 1.0, {"path": tmp_path})])
    assert [(event["name"], event["args"]) for event in of_phase(events, "X")] == [("näme", {"path": str(tmp_path)})]
    assert rows(events) == {1: 'a "quoted"\nrow'}


def test_files_of_several_ranks_can_be_joined(tmp_path: Path) -> None:
    zero, two = (recorded(tmp_path / f"{rank}.json", rank=rank, span=[("x", "a", 0.0, 1.0)]) for rank in (0, 2))
    assert rows(zero) == {1: "x [rank 0]"}
    assert rows(two) == {2 * ROWS_OF_RANK + 1: "x [rank 2]"}


@pytest.mark.parametrize("setting", ["", "DYNAMIC"])
def test_no_path_records_nothing(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(setting, 0)
    recorder.trace("x", "ALLREDUCE", 0.0, 1.0)
    recorder.span("x", "b", 0.0, 1.0)
    recorder.stop()
    assert not list(tmp_path.iterdir())
    assert recorder.enabled is (setting == "DYNAMIC")


def test_a_plain_path_is_rank_0s(tmp_path: Path) -> None:
    for rank in range(3):
        recorder = Recorder(str(tmp_path / "trace.json"), rank)
        recorder.trace("x", f"by rank {rank}", 0.0, 1.0)
        recorder.stop()
    assert [event["name"] for event in of_phase(read(tmp_path / "trace.json"), "X")] == ["by rank 0"]


def test_a_path_with_rank_gives_every_rank_a_file(tmp_path: Path) -> None:
    for rank in range(3):
        Recorder(str(tmp_path / "trace-{rank}.json"), rank).stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"trace-{rank}.json" for rank in range(3)]


def test_recordings_begin_and_end_at_any_time(tmp_path: Path) -> None:
    recorder = Recorder("DYNAMIC", 0)
    for name in ("one", "two"):
        recorder.trace("x", "unseen", 0.0, 1.0)
        recorder.start(str(tmp_path / name), mark_cycles=name == "two")
        recorder.trace("x", f"in {name}", 0.0, 1.0)
        recorder.trace("", "CYCLE_START", 1.0, 1.0)
        recorder.stop()
        recorder.stop()
    names = {
        name: [event["name"] for event in of_phase(read(tmp_path / name), "X", "i")][:-1] for name in ("one", "two")
    }
    assert names == {"one": ["in one"], "two": ["in two", "CYCLE_START"]}


def test_a_second_start_completes_the_first_file(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path / "one"), 0)
    recorder.start(str(tmp_path / "two"))
    assert [event["name"] for event in read(tmp_path / "one")] == ["timeline closed"]
    recorder.stop()


def test_without_the_variable_a_start_is_horovods_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Set HOROVOD_TIMELINE=DYNAMIC to enable dynamic timeline usage"):
        Recorder("", 0).start(str(tmp_path / "trace.json"))
