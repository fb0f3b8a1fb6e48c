"""Who is signalled when, with a shell script in MPI's place and real agents where they matter."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hvd_gossip.launch.agent.options import VARIABLE, Options
from hvd_gossip.launch.plan import AGENT
from hvd_gossip.launch.reports import RankEnd, ReportServer
from hvd_gossip.launch.supervise import Outcome, Patience, Supervisor
from tests.launch.waiting import gone, marked, number_in, until

QUICK = Patience(failure=0.1, stop=0.3, kill=5.0, call=0.0)
FAILED = RankEnd(0, "host", 1, 3, False, 1.0, ())
MARK = "HVD_TEST_SUPERVISED"


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """An environment whose processes are found again: none may be left."""
    yield os.environ | {MARK: str(tmp_path)}
    until(lambda: not marked(MARK, str(tmp_path)))  # killed ones take a moment


class Run:
    """A supervisor over a shell script, in this thread or another."""

    def __init__(
        self,
        script: str,
        environ: Mapping[str, str],
        patience: Patience = QUICK,
        ends: bool = True,
        start_timeout: float = 0.0,
    ) -> None:
        self.supervisor = Supervisor(1, patience, end_on_failure=ends, start_timeout=start_timeout)
        self.script, self.environ = script, environ
        self.agents: ReportServer

    def run(self) -> Outcome:
        with ReportServer(remote=False, on_failure=self.supervisor.failed) as agents:
            self.agents = agents
            told = Options(agents.addresses, agents.token, orphan_grace=0.2)
            environment = {**self.environ, VARIABLE: told.to_json()}
            return self.supervisor.run(["sh", "-c", self.script], environment, agents)


def beside(action: object) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


@pytest.mark.parametrize("code", [0, 5])
def test_mpi_s_own_end_is_the_outcome(code: int, environ: Mapping[str, str]) -> None:
    assert Run(f"exit {code}", environ).run() == Outcome(code, None)


def test_a_program_that_is_not_there(environ: Mapping[str, str]) -> None:
    run = Run("", environ)
    with ReportServer(remote=False, on_failure=run.supervisor.failed) as agents, pytest.raises(FileNotFoundError):
        run.supervisor.run(["/no/mpirun"], environ, agents)


def test_after_a_failure_mpi_has_a_moment_and_is_then_ended(environ: Mapping[str, str], tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    run = Run(f"trap 'exit 6' TERM; echo $$ > {pid}; while :; do sleep 0.02; done", environ)
    beside(lambda: (number_in(pid), run.supervisor.failed(FAILED)))
    assert run.run() == Outcome(6, None)


def test_mpi_that_ends_by_itself_after_a_failure_is_left_alone(environ: Mapping[str, str]) -> None:
    run = Run("trap 'exit 6' TERM; sleep 0.1; exit 3", environ, Patience(failure=60))
    run.supervisor.failed(FAILED)
    assert run.run() == Outcome(3, None)


def test_a_failure_may_be_survived(environ: Mapping[str, str]) -> None:
    run = Run("sleep 0.4; exit 0", environ, ends=False)
    run.supervisor.failed(FAILED)
    assert run.run() == Outcome(0, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on_to_mpi_when_no_agent_is_there(
    number: signal.Signals, environ: Mapping[str, str], tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    run = Run(f"trap 'exit 6' {number.name[3:]}; echo $$ > {pid}; while :; do sleep 0.02; done", environ)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    beside(lambda: (number_in(pid), os.kill(os.getpid(), number)))
    assert run.run() == Outcome(6, number)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers


def test_an_ignored_signal_stays_ignored(environ: Mapping[str, str], tmp_path: Path) -> None:
    pid, sent = tmp_path / "pid", tmp_path / "sent"
    script = f"echo $$ > {pid}; while [ ! -e {sent} ]; do sleep 0.02; done"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    helper = beside(lambda: (number_in(pid), os.kill(os.getpid(), signal.SIGHUP), sent.touch()))
    try:
        assert Run(script, environ).run() == Outcome(0, None)
    finally:
        helper.join()
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_signals_are_not_touched(environ: Mapping[str, str]) -> None:
    outcomes: list[Outcome] = []
    beside(lambda: outcomes.append(Run("exit 4", environ).run())).join()
    assert outcomes == [Outcome(4, None)]


def test_mpi_that_ignores_signals_is_killed(environ: Mapping[str, str], tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"trap '' INT TERM; echo $$ > {pid}; while :; do sleep 0.02; done"
    run = Run(script, environ, Patience(stop=0.1, kill=0.2, call=0.0))
    beside(lambda: (number_in(pid), os.kill(os.getpid(), signal.SIGINT)))
    assert run.run() == Outcome(-signal.SIGKILL, signal.SIGINT)


STUBBORN = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, lambda *_: Path(sys.argv[1], "interrupted").touch())
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(sys.argv[1], "pid").write_text(f"{os.getpid()}\\n")
while True:
    time.sleep(60)
"""


def agent_script(folder: Path) -> str:
    """In MPI's place: one agent, waited for, with all signals ignored but by the rank."""
    (folder / "rank.py").write_text(STUBBORN)
    return f"trap '' INT TERM; {' '.join(AGENT)} {sys.executable} {folder}/rank.py {folder}; exit $?"


def test_a_rank_gets_a_moment_after_ctrl_c_and_is_then_killed(environ: Mapping[str, str], tmp_path: Path) -> None:
    run = Run(agent_script(tmp_path), environ, Patience(stop=3.0))
    ranks: list[int] = []

    def interrupt() -> None:
        ranks.append(number_in(tmp_path / "pid"))
        until(lambda: run.agents.connected == 1)
        os.kill(os.getpid(), signal.SIGINT)

    beside(interrupt)
    assert run.run().stopped_by == signal.SIGINT
    assert (tmp_path / "interrupted").exists()
    until(lambda: gone(ranks[0]))


def test_a_second_ctrl_c_does_not_wait(environ: Mapping[str, str], tmp_path: Path) -> None:
    run = Run(agent_script(tmp_path), environ, Patience(stop=1000.0))

    def interrupt_twice() -> None:
        number_in(tmp_path / "pid")
        until(lambda: run.agents.connected == 1)
        os.kill(os.getpid(), signal.SIGINT)
        until((tmp_path / "interrupted").exists)
        os.kill(os.getpid(), signal.SIGINT)

    beside(interrupt_twice)
    assert run.run().stopped_by == signal.SIGINT


def test_an_agent_that_calls_after_the_signal_is_told_and_mpi_is_not(
    environ: Mapping[str, str], tmp_path: Path
) -> None:
    pid, sent, mpi = (tmp_path / name for name in ("pid", "sent", "mpi"))
    late = f"while [ ! -e {sent} ]; do sleep 0.02; done; {' '.join(AGENT)} sleep 60"
    run = Run(f"trap 'touch {mpi}' TERM; echo $$ > {pid}; {late}", environ, Patience(stop=1000.0, call=1000.0))
    beside(lambda: (number_in(pid), os.kill(os.getpid(), signal.SIGTERM), sent.touch()))
    assert run.run() == Outcome(128 + signal.SIGTERM, signal.SIGTERM)
    assert [(end.returncode, end.told) for end in run.agents.ends] == [(-signal.SIGTERM, True)]
    assert not mpi.exists()


def test_ranks_do_not_outlive_mpi(environ: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(STUBBORN)
    background = f"{' '.join(AGENT)} {sys.executable} {tmp_path}/rank.py {tmp_path} & echo $$ > {tmp_path}/mpi; wait"
    run = Run(background, environ)

    def kill_mpi() -> None:
        number_in(tmp_path / "pid")
        os.kill(number_in(tmp_path / "mpi"), signal.SIGKILL)

    beside(kill_mpi)
    assert run.run() == Outcome(-signal.SIGKILL, None)
    until(lambda: gone(number_in(tmp_path / "pid")))


def test_a_job_whose_ranks_do_not_call_in_time_is_ended(environ: Mapping[str, str]) -> None:
    outcome = Run("exec sleep 600", environ, start_timeout=0.2).run()
    assert outcome == Outcome(-signal.SIGTERM, None, late=True)


def test_ranks_that_have_called_may_take_their_time(environ: Mapping[str, str]) -> None:
    supervisor = Supervisor(2, QUICK, start_timeout=0.01)
    with ReportServer(remote=False, on_failure=supervisor.failed) as agents:
        agents.seen.update({0: "host", 1: "host"})
        assert supervisor.run(["sh", "-c", "sleep 0.3; exit 5"], environ, agents) == Outcome(5, None, late=False)


def test_a_job_that_ends_before_the_time_limit_is_not_late(environ: Mapping[str, str]) -> None:
    assert Run("exit 4", environ, start_timeout=60.0).run() == Outcome(4, None, late=False)
