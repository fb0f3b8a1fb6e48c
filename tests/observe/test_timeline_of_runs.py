"""Timelines of real runs: Horovod's events of collectives, started and stopped while training, and what gossip adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.mpi import run_ranks

COLLECTIVES = """
    import sys
    import time
    import numpy as np
    from hvd_gossip import basics, runtime
    from hvd_gossip.collectives import Request
    from tests.mpi import report

    def allreduce(name, length=100_000):
        runtime.current().submit(Request(f"allreduce.{name}", "allreduce", np.ones(length, np.float32), op=1)).wait()
"""
STATIC = (
    COLLECTIVES
    + """
    basics.init()
    if basics.rank() > 0:
        time.sleep(0.3)  # so that rank 0 waits
    allreduce("large")
    allreduce("small", 3)
    basics.shutdown()
"""
)
DYNAMIC = (
    COLLECTIVES
    + """
    errors = []
    for function in (lambda: basics.start_timeline(sys.argv[1]), basics.stop_timeline):
        try:
            function()
        except ValueError as error:
            errors.append(str(error))
    basics.init()
    allreduce("before")
    try:
        basics.start_timeline(sys.argv[1], mark_cycles=True)
    except ValueError as error:
        errors.append(str(error))
    allreduce("during")
    basics.stop_timeline()
    allreduce("between")  # which other ranks may ask for before rank 0 has stopped: then its negotiation is recorded
    allreduce("after")
    basics.shutdown()
    report(errors)
"""
)
GOSSIP = """
    import time
    import numpy as np
    from hvd_gossip import basics, runtime

    basics.init()
    flat = np.full(1000, float(basics.rank()))
    worker = runtime.current().attach([flat])
    steps = 0
    while steps < 4 or not runtime.current().counters.exchanges:
        worker.step(lambda: time.sleep(0.001))
        steps += 1
    runtime.current().detach(worker)
    basics.shutdown()
"""

Event = dict[str, Any]


def read(path: Path) -> dict[str, list[Event]]:
    """The events of each row."""
    events: list[Event] = json.loads(path.read_text())
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    found: dict[str, list[Event]] = {name: [] for name in names.values()}
    for event in events:
        if event["ph"] != "M" and event["pid"] in names:
            found[names[event["pid"]]].append(event)
    return found


def overlapping(path: Path) -> list[Event]:
    """Events that begin within another one of their track and end after it: viewers cannot show them."""
    found, tracks = [], {}
    for event in json.loads(path.read_text()):
        track = tracks.setdefault((event["pid"], event["tid"]), {"whole": [], "begun": []})
        if event["ph"] == "B":
            track["begun"].append(event)
        elif event["ph"] in "EX":
            begin = track["begun"].pop() if event["ph"] == "E" else event
            track["whole"].append((begin["ts"], -(event["ts"] + event.get("dur", 0)), event))
    for track in tracks.values():
        around: list[int] = []
        for start, minus_end, event in sorted(track["whole"], key=lambda one: one[:2]):
            while around and around[-1] <= start:
                around.pop()
            if around and -minus_end > around[-1]:
                found.append(event)
            around.append(-minus_end)
    return found


def names(events: list[Event]) -> list[str]:
    return [event["name"] for event in events]


def test_rank_0_writes_the_negotiation_with_every_rank_and_the_transfer(tmp_path: Path) -> None:
    flags = ["--timeline-filename", str(tmp_path / "t.json"), "--timeline-mark-cycles"]
    run_ranks(3, STATIC, launcher="hvd-gossip-run", launcher_args=flags)
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]
    rows = read(tmp_path / "t.json")
    large = names(rows["allreduce.large"])
    assert large[0] == large[4] == "NEGOTIATE_ALLREDUCE"
    assert sorted(large[1:4]) == ["0", "1", "2"]
    assert large[5:] == ["ALLREDUCE", "QUEUE", "MPI_ALLREDUCE"]
    assert names(rows["allreduce.small"])[-1] == "ALLREDUCE"
    assert "MPI_ALLREDUCE" not in names(rows["allreduce.small"])
    assert any(name.startswith("WAIT: allreduce of 'allreduce.large'") for name in names(rows["training"]))
    assert "CYCLE_START" in (tmp_path / "t.json").read_text()
    assert not overlapping(tmp_path / "t.json")


def test_a_part_of_a_run_is_recorded_between_start_and_stop(tmp_path: Path) -> None:
    path = str(tmp_path / "t.json")
    done = run_ranks(2, DYNAMIC, [path], env={"HOROVOD_TIMELINE": "DYNAMIC"})
    assert done.in_rank_order() == [["Horovod has not been initialized; use hvd.init()."] * 2] * 2
    rows = read(tmp_path / "t.json")
    assert "allreduce.during" in rows
    assert not {"allreduce.before", "allreduce.after"} & set(rows)
    assert "CYCLE_START" in (tmp_path / "t.json").read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.json"]


def test_without_the_variable_start_is_an_error_and_training_goes_on(tmp_path: Path) -> None:
    done = run_ranks(2, DYNAMIC, [str(tmp_path / "t.json")])
    assert [errors[-1] for errors in done.in_rank_order()] == [
        "Set HOROVOD_TIMELINE=DYNAMIC to enable dynamic timeline usage."
    ] * 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("algorithm", ["dpsgd", "adpsgd"])
def test_gossip_shows_peers_steps_and_waits_of_every_rank(algorithm: str, tmp_path: Path) -> None:
    env = {"HOROVOD_TIMELINE": str(tmp_path / "t-{rank}.json"), "HVD_GOSSIP_ALGORITHM": algorithm}
    run_ranks(2, GOSSIP, env=env)
    seen: set[str] = set()
    for rank in range(2):
        rows = read(tmp_path / f"t-{rank}.json")
        assert not overlapping(tmp_path / f"t-{rank}.json")
        assert names(rows[f"training [rank {rank}]"]).count("STEP") >= 3
        assert any(name.startswith("WAIT: ") for name in names(rows[f"training [rank {rank}]"]))
        peer = rows.get(f"peer {1 - rank} [rank {rank}]", [])
        assert all(event["args"]["bytes"] > 0 and event["args"]["messages"] > 0 for event in peer)
        seen |= set(names(peer))
    assert seen == {"SEND", "RECEIVE"}


RESTARTED = (
    COLLECTIVES
    + """
    basics.init()
    handles = []
    for number in range(12):
        request = Request(f"allreduce.{number}", "allreduce", np.ones(50_000, np.float32), op=1)
        handles.append(runtime.current().submit(request))
        if (number + basics.rank()) % 3 == 0:
            basics.start_timeline(f"{sys.argv[1]}/{number}.json")
        if (number + basics.rank()) % 3 == 1:
            basics.stop_timeline()
    for handle in handles:
        handle.wait()
    basics.start_timeline(f"{sys.argv[1]}/last.json")
    allreduce("last")
    basics.shutdown()
"""
)


def test_horovod_2330_timelines_begin_and_end_while_operations_are_under_way(tmp_path: Path) -> None:
    """horovod#2330, #1595: ranks that did so at different moments broke operations, and the file was no JSON."""
    run_ranks(3, RESTARTED, [str(tmp_path)], env={"HOROVOD_TIMELINE": "DYNAMIC"})
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == ["0.json", "3.json", "6.json", "9.json", "last.json"]
    assert "ALLREDUCE" in names(read(paths[-1])["allreduce.last"])
    assert not any(overlapping(path) for path in paths)
