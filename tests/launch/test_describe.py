"""What the launcher says of what there is, what it will run, and how that ended."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.launch import describe
from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.launcher import LaunchResult
from hvd_gossip.launch.mpirun import Flavour, Job, Mpirun
from hvd_gossip.launch.plan import Plan
from hvd_gossip.launch.reports import RankEnd
from tests.launch.waiting import TEST_LIMIT

FIRST = RankEnd(2, "node7", 4242, -9, False, 12.34, ("epoch 3", "dying"))
HOSTS = (Host("node1", 2), Host("node2", 1), Host("node3", 1))


def plan(hosts: Sequence[Host] = (), np: int = 4, **job: object) -> Plan:
    mpirun = Mpirun("mpirun", Flavour.OPEN_MPI_5, "5.0.11")
    return Plan(mpirun, Job(np, ("sh",), tuple(hosts), **job), {})  # type: ignore[arg-type]


def result(exit_code: int, *ends: RankEnd, **more: object) -> LaunchResult:
    return LaunchResult(exit_code, ends, **{"stopped_by": None, "command": ("mpirun",), "seconds": 20.0, **more})  # type: ignore[arg-type]


def test_a_failure_is_described_by_who_where_why_and_the_last_words() -> None:
    later = RankEnd(0, "node1", 1, 1, False, 13.0, ("consequence",))
    told = RankEnd(1, "node1", 2, -15, True, 12.0, ())
    assert describe.describe_failure(result(137, told, FIRST, later), plan()) == [
        "rank 2 on node7 failed first, after 12.3 s: signal 9 (SIGKILL)",
        "then failed rank 0",
        "the end of rank 2's output:\n  epoch 3\n  dying",
    ]


def test_a_job_that_was_stopped_has_no_culprit() -> None:
    assert describe.describe_failure(result(130, FIRST, stopped_by=signal.SIGINT), plan()) == [
        "stopped by SIGINT after 20.0 s"
    ]


def test_when_no_rank_could_say_anything_mpi_s_code_is_what_is_known() -> None:
    (line,) = describe.describe_failure(result(6), plan())
    assert "exit code 6 after 20.0 s, before any rank's end was seen" in line


def test_hosts_that_were_not_heard_of_are_named_with_the_command_to_try() -> None:
    (line, more) = describe.describe_failure(result(1, missing=(2, 3)), plan(HOSTS, ssh_args=("-p", "2222")))
    assert "before any rank's end was seen" in line
    assert more.startswith("nothing was heard of ranks 2, 3 (node2, node3). ")
    assert "ssh -p 2222 node2 true" in more


def test_ranks_that_did_not_start_in_time() -> None:
    (line,) = describe.describe_failure(result(1, missing=(3,), late=True), plan(HOSTS))
    assert line.startswith(
        "rank 3 (node3) did not start within 30 s. Does this work without a question: ssh node3 true?"
    )
    assert "--start-timeout SECONDS waits longer, 0 for ever" in line


def test_on_this_machine_there_is_no_ssh_to_try() -> None:
    (line,) = describe.describe_failure(result(1, missing=(0, 1), late=True), plan())
    assert line.startswith("ranks 0, 1 did not start within 30 s. ")
    assert "ssh" not in line


def test_another_agent_than_ssh_is_the_one_to_try() -> None:
    own = plan(HOSTS, mpi_args=("--prtemca", "plm_ssh_agent", "/opt/shell"))
    assert "/opt/shell node3 true" in describe.describe_failure(result(1, missing=(3,), late=True), own)[0]


@pytest.mark.timeout(TEST_LIMIT)
def test_check_build_is_horovods_table() -> None:
    lines = describe.check_build().splitlines()
    assert "Available Frameworks:" in lines
    assert "    [X] PyTorch" in lines
    assert "    [ ] MXNet" in lines
    assert lines[lines.index("Available Controllers:") + 1 :][:2] == ["    [X] MPI", "    [ ] Gloo"]
    operations = lines[lines.index("Available Tensor Operations:") + 1 :][:5]
    assert operations == ["    [ ] NCCL", "    [ ] DDL", "    [ ] CCL", "    [X] MPI", "    [ ] Gloo"]
    assert all(f"    [X] {name}" in lines for name in ALGORITHMS)
    assert lines[-1].startswith("Launcher: ")


def test_check_build_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    text = describe.check_build()
    assert "[ ] PyTorch" in text
    assert text.count("[ ] MPI") == 2
    assert text.splitlines()[-1].startswith("Launcher: none: ")
