"""The agent as a process, under a test that plays the MPI launcher: output, ends, signals, and what outlives whom."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from hvd_gossip.launch.agent.options import AGENT_PID, VARIABLE, Options
from hvd_gossip.launch.plan import AGENT
from hvd_gossip.launch.reports import RankEnd, ReportServer
from tests.launch.waiting import gone, number_in, until

SLEEPS = """
import os, signal, sys, time
from pathlib import Path

def note(number, frame):
    with open("signals", "a") as file:
        print(number, file=file)
    if "stubborn" not in sys.argv:
        sys.exit(7)

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, note)
Path("pid").write_text(f"{os.getpid()}\\n")
while True:
    time.sleep(60)
"""


@contextmanager
def serving() -> Iterator[ReportServer]:
    with ReportServer(remote=False, on_failure=lambda end: None) as server:
        yield server


def start(
    server: ReportServer | None, *command: str, cwd: Path | None = None, grace: float = 30.0, **more: Any
) -> subprocess.Popen[str]:
    """An agent in a process group of its own, as MPI launchers start it; it is rank 5."""
    told = Options(server.addresses, server.token, orphan_grace=grace) if server else Options((), "")
    return subprocess.Popen(
        [*AGENT, *command],
        env=os.environ | {VARIABLE: told.to_json(), "PMI_RANK": "5"} | more.pop("env", {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=cwd,
        **more,
    )


def run(server: ReportServer | None, *command: str, **more: Any) -> tuple[int, str, str]:
    with start(server, *command, **more) as agent:
        stdout, stderr = agent.communicate()
    return agent.returncode, stdout, stderr


def reported(server: ReportServer) -> RankEnd:
    until(lambda: len(server.ends) == 1)
    return server.ends[0]


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_codes_pass_through(code: int) -> None:
    with serving() as server:
        assert run(server, "sh", "-c", f"echo out; echo err >&2; exit {code}") == (code, "out\n", "err\n")
        end = reported(server)
        assert (end.rank, end.returncode, end.told) == (5, code, False)
        assert sorted(end.tail) == ["err", "out"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_a_command_that_a_signal_ends(number: signal.Signals) -> None:
    with serving() as server:
        returncode, stdout, _ = run(server, "sh", "-c", f"echo dying; kill -{number.value} $$")
        assert (returncode, stdout) == (-number, "dying\n")
        end = reported(server)
        assert (end.returncode, end.told, end.tail) == (-number, False, ("dying",))


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_start(program: str, code: int) -> None:
    with serving() as server:
        returncode, _, stderr = run(server, program)
        assert returncode == code
        assert f"{program} cannot be run on" in stderr
        assert reported(server).returncode == code
        assert program in reported(server).tail[0]


def test_without_a_launcher_to_tell_a_failure_is_printed() -> None:
    assert run(None, "true") == (0, "", "")
    code, _, stderr = run(None, "sh", "-c", "exit 4")
    assert code == 4
    assert "rank 5 on" in stderr
    assert "ended with 4" in stderr
    assert "firewall" in stderr


def test_the_command_sees_neither_options_nor_input_but_its_file_descriptors() -> None:
    code = f"import os, sys; print({VARIABLE!r} in os.environ, sys.stdin.read() == '', os.read(int(sys.argv[1]), 9))"
    reader, writer = os.pipe()
    os.write(writer, b"from pmi")
    with serving() as server:
        done = run(server, sys.executable, "-c", code, str(reader), pass_fds=[reader])
    os.close(reader)
    os.close(writer)
    assert done == (0, "False True b'from pmi'\n", "")


def test_the_command_can_tell_that_its_parent_is_an_agent() -> None:
    code = f"import os; print(os.environ[{AGENT_PID!r}] == str(os.getppid()))"
    with serving() as server:
        assert run(server, sys.executable, "-c", code)[1] == "True\n"


def test_the_command_is_in_the_agents_group_with_no_signal_blocked() -> None:
    code = "import os, signal; print(os.getpgid(0) == os.getppid(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    with serving() as server:
        assert run(server, sys.executable, "-c", code)[1] == "True set()\n"


def test_much_output_arrives_whole() -> None:
    code = "import sys; [print(i, 'x' * 100, file=(sys.stdout, sys.stderr)[i % 2]) for i in range(20000)]"
    with serving() as server:
        _, stdout, stderr = run(server, sys.executable, "-c", code)
        assert [int(line.split()[0]) for line in stdout.splitlines()] == list(range(0, 20000, 2))
        assert [int(line.split()[0]) for line in stderr.splitlines()] == list(range(1, 20000, 2))
        assert len(reported(server).tail) == 20


@contextmanager
def sleeping(server: ReportServer, folder: Path, *args: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """An agent whose command waits for signals, and the command's process id."""
    grace = 3.0 if "stubborn" in args else 30.0  # enough to handle SIGTERM on a busy machine
    with start(server, sys.executable, "-c", SLEEPS, *args, cwd=folder, grace=grace) as agent:
        yield agent, number_in(folder / "pid")


def signals(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "signals").read_text().split()]


def test_the_mpi_launcher_s_signal_reaches_the_command_once(tmp_path: Path) -> None:
    with serving() as server, sleeping(server, tmp_path) as (agent, _):
        os.killpg(agent.pid, signal.SIGTERM)  # this test is the agent's parent, as MPI's launcher would be
        assert agent.wait() == 7
        assert signals(tmp_path) == [signal.SIGTERM]
        assert not reported(server).told  # it ended in its own way


def test_a_signal_from_anybody_else_is_passed_on_once(tmp_path: Path) -> None:
    with serving() as server, sleeping(server, tmp_path) as (agent, _):
        subprocess.run(["sh", "-c", f"kill -USR1 {agent.pid}"], check=True)
        assert agent.wait() == 7
        assert signals(tmp_path) == [signal.SIGUSR1]


def test_a_signal_through_the_channel_reaches_the_command_once(tmp_path: Path) -> None:
    with serving() as server, sleeping(server, tmp_path) as (agent, _):
        until(lambda: server.connected == 1)
        server.signal(signal.SIGINT)
        assert agent.wait() == 7
        assert signals(tmp_path) == [signal.SIGINT]


def test_ending_of_a_signal_that_was_sent_is_told_apart() -> None:
    with serving() as server, start(server, "sleep", "60") as agent:
        until(lambda: server.connected == 1)
        server.signal(signal.SIGTERM)
        assert agent.wait() == -signal.SIGTERM
        assert reported(server).told


def test_mpi_s_signal_is_noted_though_the_command_has_died_of_it_before_the_agent_looks() -> None:
    with serving() as server, start(server, "sleep", "60") as agent:
        until(lambda: server.connected == 1)
        (command,) = psutil.Process(agent.pid).children()
        agent.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(agent.pid).status() == psutil.STATUS_STOPPED)
        os.killpg(agent.pid, signal.SIGTERM)
        agent.send_signal(signal.SIGUSR1)  # has a lower number: it is looked at first
        until(lambda: gone(command.pid))
        agent.send_signal(signal.SIGCONT)
        assert agent.wait() == -signal.SIGTERM
        assert reported(server).told


@pytest.mark.parametrize("args", [(), ("stubborn",)])
def test_when_the_launcher_is_gone_the_command_ends_soon(tmp_path: Path, args: tuple[str, ...]) -> None:
    with serving() as server, sleeping(server, tmp_path, *args) as (agent, pid):
        until(lambda: server.connected == 1)
        server.hang_up()
        assert agent.wait() == (-signal.SIGKILL if args else 7)
        assert signals(tmp_path) == [signal.SIGTERM]
        until(lambda: gone(pid))


def test_when_its_parent_is_gone_the_command_ends_soon(tmp_path: Path) -> None:
    with serving() as server:
        told = Options(server.addresses, server.token, orphan_grace=30.0)
        mpirun = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import subprocess, sys; subprocess.run(sys.argv[1:])",
                *AGENT,
                sys.executable,
                "-c",
                SLEEPS,
            ],
            env=os.environ | {VARIABLE: told.to_json()},
            cwd=tmp_path,
        )
        pid = number_in(tmp_path / "pid")
        until(lambda: server.connected == 1)
        mpirun.kill()
        mpirun.wait()
        assert reported(server).returncode == 7
        until(lambda: gone(pid))
        assert signals(tmp_path) == [signal.SIGTERM]


def test_a_killed_agent_takes_its_command_along(tmp_path: Path) -> None:
    with serving() as server, sleeping(server, tmp_path, "stubborn") as (agent, pid):
        agent.kill()
        until(lambda: gone(pid))
        assert not (tmp_path / "signals").exists()


def test_what_a_failed_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    script = "sleep 60 >/dev/null 2>&1 & echo $! > pid; exit 3"
    with serving() as server:
        assert run(server, "sh", "-c", script, cwd=tmp_path)[0] == 3
    until(lambda: gone(number_in(tmp_path / "pid")))


def test_what_a_finished_command_leaves_behind_may_stay(tmp_path: Path) -> None:
    script = "sleep 60 >/dev/null 2>&1 & echo $! > pid"
    with serving() as server:
        assert run(server, "sh", "-c", script, cwd=tmp_path)[0] == 0
    pid = number_in(tmp_path / "pid")
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_terminal_for_a_terminal() -> None:
    code = "import os; print(os.isatty(1), os.isatty(2), os.get_terminal_size(1)[:])"
    told = Options((), "", terminals=(True, False), terminal_size=(30, 99))
    done = subprocess.run(
        [*AGENT, sys.executable, "-c", code],
        env=os.environ | {VARIABLE: told.to_json()},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True False (99, 30)\n"


def test_options_travel_as_json() -> None:
    told = Options((("a", 1), ("b", 2)), "token", 2.5, (True, False), (30, 99))
    assert Options.from_json(told.to_json()) == told
    assert json.loads(told.to_json())["addresses"] == [["a", 1], ["b", 2]]


def test_an_unreachable_address_is_passed_over() -> None:
    with serving() as server:
        closed = ("127.0.0.1", 1)
        told = Options((closed, *server.addresses), server.token)
        done = subprocess.run([*AGENT, "sh", "-c", "exit 2"], env=os.environ | {VARIABLE: told.to_json()})
        assert done.returncode == 2
        assert reported(server).returncode == 2
