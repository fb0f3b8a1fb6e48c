"""Ranks of benchmarks: started, told, heard, bounded in time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from benchmarks import job
from benchmarks.job import JobFailed, Meeting, rank_of, run_ranks
from benchmarks.options import Options

RANK = """
import os, sys, time
from benchmarks.job import rank_of, serve
from benchmarks.options import Options

def measure(options, meeting, mode):
    rank = rank_of(os.environ)
    if mode == "fail" and rank == 1:
        raise RuntimeError("this rank has had enough")
    if mode == "hang" and rank == 1:
        time.sleep(3600)
    if mode == "silent" and rank == 1:
        os._exit(0)
    meeting.all_here("hello", 2)
    return {"rank": rank, "timeout": options.timeout, "threads": os.environ["OMP_NUM_THREADS"]}

serve(Options, measure)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of `benchmarks.ranks` for these tests: found before the others on that package's path."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import benchmarks.ranks\nbenchmarks.ranks.__path__.insert(0, {str(tmp_path)!r})\n"
    )
    (tmp_path / "talkative.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "talkative"


def test_ranks_are_told_the_knobs_and_heard_in_order(module: str) -> None:
    done = run_ranks(module, 2, Options(timeout=40.0), mode="talk")
    assert done.results == [{"rank": rank, "timeout": 40.0, "threads": "1"} for rank in (0, 1)]
    assert done.command == "hvd-gossip-run -np 2 --threads-per-rank 1 python -m benchmarks.ranks.talkative mode=talk"


def test_a_failing_rank_fails_the_job_with_its_output(module: str) -> None:
    with pytest.raises(JobFailed, match=r"exit code 1[\s\S]*this rank has had enough"):
        run_ranks(module, 2, Options(timeout=40.0), mode="fail")


def test_a_rank_that_returns_nothing_fails_the_job(module: str) -> None:
    with pytest.raises(JobFailed):
        run_ranks(module, 2, Options(timeout=5.0), mode="silent")


def test_a_hanging_rank_is_ended_and_its_stack_shown(module: str) -> None:
    with pytest.raises(JobFailed, match=r"Timeout[\s\S]*in measure"):
        run_ranks(module, 2, Options(timeout=3.0), mode="hang")


def test_ranks_meet_asleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meetings = []
    for rank in (0, 1):
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
        meetings.append(Meeting(tmp_path))
    early, late = meetings
    waiting = threading.Thread(target=lambda: [early.all_here("place", 2) for _ in range(2)])
    waiting.start()
    late.arrive("place")
    deadline = time.monotonic() + 10
    while not late.here("place", 0, 2) and time.monotonic() < deadline:
        time.sleep(job.POLL_SECONDS)
    assert late.here("place", 0, 2), "the first time, both had come"
    assert not late.here("place", 1, 2)
    assert waiting.is_alive()
    late.arrive("place")
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_rank_knows_its_number_under_any_launcher() -> None:
    assert rank_of({"OMPI_COMM_WORLD_RANK": "3", "PMIX_RANK": "3"}) == 3
    assert rank_of({"PMI_RANK": "1"}) == 1
    with pytest.raises(RuntimeError, match="no MPI launcher"):
        rank_of({})
