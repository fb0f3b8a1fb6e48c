"""The timeline: a trace that is whole JSON after close and repairable before, each event as the Chrome format has it."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hvd_gossip.observe.timeline import NullTimeline, Timeline, open_timeline

Event = dict[str, Any]


def read(path: Path) -> list[Event]:
    events: list[Event] = json.loads(path.read_text())
    return events


def of_phase(events: list[Event], phase: str) -> list[Event]:
    return [event for event in events if event["ph"] == phase]


def lanes(events: list[Event]) -> dict[int, str]:
    return {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}


def test_closed_file_is_a_json_array_of_events(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "trace.json", rank=2)
    timeline.span("engine", "exchange", 10.0, 10.5, {"peer": 3})
    timeline.instant("training", "step", {"step": 1})
    timeline.counter("queue", 4)
    timeline.close()
    events = read(tmp_path / "trace.json")
    assert {event["pid"] for event in events} == {2}
    assert events[0] == {"name": "process_name", "ph": "M", "pid": 2, "tid": 0, "args": {"name": "rank 2"}}
    (span,) = of_phase(events, "X")
    assert (span["name"], span["dur"], span["args"]) == ("exchange", 500_000.0, {"peer": 3})
    assert lanes(events)[span["tid"]] == "engine"
    assert [event["args"] for event in of_phase(events, "C")] == [{"value": 4}]
    assert of_phase(events, "i")[0]["args"] == {"step": 1}


def test_times_are_microseconds_since_the_epoch(tmp_path: Path) -> None:
    before = time.time()
    timeline = Timeline(tmp_path / "trace.json", rank=0)
    start = time.perf_counter()
    timeline.span("engine", "first", start, start + 1)
    timeline.span("engine", "later", start + 2, start + 2)
    timeline.close()
    first, later = of_phase(read(tmp_path / "trace.json"), "X")
    assert later["ts"] - first["ts"] == pytest.approx(2e6, abs=1)
    assert before - 1 <= first["ts"] / 1e6 <= time.time() + 1
    assert later["dur"] == 0


def test_span_that_ends_before_it_starts_has_no_negative_length(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "trace.json", rank=0)
    timeline.span("engine", "odd", 2.0, 1.0)
    timeline.close()
    assert of_phase(read(tmp_path / "trace.json"), "X")[0]["dur"] == 0


def test_begin_and_end_pair_up_on_their_lane(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "trace.json", rank=0)
    timeline.begin("grad/conv1", "NEGOTIATE")
    timeline.begin("grad/conv2", "NEGOTIATE")
    timeline.end("grad/conv1")
    timeline.end("grad/conv2")
    timeline.close()
    events = read(tmp_path / "trace.json")
    steps = [(event["ph"], lanes(events)[event["tid"]]) for event in events if event["ph"] in "BE"]
    assert steps == [("B", "grad/conv1"), ("B", "grad/conv2"), ("E", "grad/conv1"), ("E", "grad/conv2")]
    stamps = [event["ts"] for event in events if event["ph"] in "BE"]
    assert stamps == sorted(stamps)


def test_threads_share_lanes_and_lose_no_event(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "trace.json", rank=0)

    def work(thread: int) -> None:
        for index in range(500):
            timeline.instant(f"lane {index % 7}", f"{thread}/{index}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timeline.close()
    events = read(tmp_path / "trace.json")
    assert {event["name"] for event in of_phase(events, "i")} >= {f"{t}/{i}" for t in range(4) for i in range(500)}
    assert sorted(lanes(events).values()) == [f"lane {number}" for number in range(7)]


def test_killed_process_leaves_an_array_that_only_lacks_its_end(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from hvd_gossip.observe.timeline import Timeline\n"
        "timeline = Timeline(sys.argv[1], 0)\n"
        "timeline.begin('engine', 'never ends')\n"
        "while 'never ends' not in pathlib.Path(sys.argv[1]).read_text(): pass\n"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "trace.json"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=50).returncode == -9
    events = json.loads(path.read_text().rstrip().removesuffix(",") + "]")
    assert [event["name"] for event in of_phase(events, "B")] == ["never ends"]


def test_interpreter_exit_completes_the_array(tmp_path: Path) -> None:
    program = "import sys; from hvd_gossip.observe.timeline import Timeline; Timeline(sys.argv[1], 0).instant('a', 'b')"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "trace.json")], check=True, timeout=50)
    assert [event["name"] for event in of_phase(read(tmp_path / "trace.json"), "i")] == ["b", "timeline closed"]


def test_odd_names_and_arguments_stay_valid_json(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "trace.json", rank=0)
    timeline.instant('a "quoted"\nlane', "näme", {"path": tmp_path})
    timeline.close()
    event = of_phase(read(tmp_path / "trace.json"), "i")[0]
    assert (event["name"], event["args"]) == ("näme", {"path": str(tmp_path)})


@pytest.mark.parametrize("path", [None, "", "DYNAMIC"])
def test_no_path_records_nothing(path: str | None) -> None:
    timeline = open_timeline(path, 0)
    assert isinstance(timeline, NullTimeline)
    timeline.span("a", "b", 0, 1)
    timeline.begin("a", "b")
    timeline.end("a")
    timeline.instant("a", "b")
    timeline.counter("a", 1)
    timeline.close()


def test_plain_path_is_rank_0s(tmp_path: Path) -> None:
    opened = [open_timeline(str(tmp_path / "trace.json"), rank) for rank in range(3)]
    for timeline in opened:
        timeline.close()
    assert [type(timeline) for timeline in opened] == [Timeline, NullTimeline, NullTimeline]
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_path_with_rank_gives_every_rank_a_file(tmp_path: Path) -> None:
    for rank in range(3):
        open_timeline(str(tmp_path / "trace-{rank}.json"), rank).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"trace-{rank}.json" for rank in range(3)]
    assert {event["pid"] for event in read(tmp_path / "trace-2.json")} == {2}
