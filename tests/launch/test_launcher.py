"""Real launches under each MPI at hand: ends, signals, environment, output; and nothing is left of any of them.

The ranks use no MPI themselves unless they say so: any MPI launcher can start them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hvd_gossip.compat import VERSION
from hvd_gossip.errors import ConfigError
from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.launcher import LaunchResult, _exit_code, launch
from hvd_gossip.launch.mpirun import Flavour, find_mpirun
from hvd_gossip.launch.plan import Output, make_plan
from hvd_gossip.launch.reports import RankEnd
from hvd_gossip.launch.supervise import Outcome, Patience
from tests.launch.conftest import launchers
from tests.launch.waiting import LIMIT, TEST_LIMIT, gone, marked, number_in, until
from tests.mpi import ROOT, run_ranks

pytestmark = pytest.mark.timeout(TEST_LIMIT)
MARK = "HVD_TEST_LAUNCHED"
PATIENT = Patience(stop=30.0, call=30.0)
"""A rank may run before its agent has called, and be slow to handle a signal."""
RANK = """
    import json, os, signal, sys, time
    from pathlib import Path
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")))
    size = int(os.environ.get("OMPI_COMM_WORLD_SIZE", os.environ.get("PMI_SIZE")))
"""


class Launches:
    """Launches of scripts from one folder, where they may leave what the test shall see."""

    def __init__(self, mpirun: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.mpirun, self.folder, self._capfd = mpirun, folder, capfd
        self.output, self.errors = "", ""

    def __call__(
        self, np: int, body: str, *args: str, env: Mapping[str, str] | None = None, **more: Any
    ) -> LaunchResult:
        script = self.folder / "script.py"
        script.write_text(self.source(body))
        running = {name: more.pop(name) for name in ("patience", "end_on_failure") if name in more}
        environ = self.environ() | dict(env or {})
        plan = make_plan(np, [str(script), *args], mpirun=self.mpirun, environ=environ, **more)
        try:
            return launch(plan, **running)
        finally:
            self.output, self.errors = self._capfd.readouterr()

    def source(self, body: str) -> str:
        return textwrap.dedent(RANK) + f"folder = Path({str(self.folder)!r})\n" + textwrap.dedent(body)

    def environ(self) -> dict[str, str]:
        return os.environ | {MARK: str(self.folder)}


@pytest.fixture
def start(mpirun: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Launches]:
    """Under each MPI launcher."""
    yield Launches(mpirun, tmp_path, capfd)
    until(lambda: not marked(MARK, str(tmp_path)))  # killed ones take a moment


@pytest.fixture
def mpich(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Launches:
    """Under MPICH only; Open MPI ends the other ranks itself when one fails, unless it is run --with-ft ulfm."""
    paths = [path for path in launchers() if find_mpirun(path).flavour is Flavour.MPICH]
    if not paths:
        pytest.skip("no MPICH: name its mpiexec in HVD_TEST_MPIRUN")
    return Launches(paths[0], tmp_path, capfd)


@pytest.mark.parametrize("np", [1, 2, 4])
def test_all_ranks_run_and_end(start: Launches, np: int) -> None:
    done = start(np, "os.write(1, f'rank {rank} of {size} {sys.argv[1:]}\\n'.encode())", "--lr", "a b")
    assert (done.exit_code, done.first_failure, done.stopped_by) == (0, None, None)
    assert sorted(end.rank for end in done.ends) == list(range(np))
    assert sorted(start.output.splitlines()) == [f"rank {rank} of {np} ['--lr', 'a b']" for rank in range(np)]


def test_a_rank_that_exits_with_a_code(start: Launches) -> None:
    done = start(
        3, "print('last words of', rank); sys.exit(3 if rank == 1 else time.sleep(60))", patience=Patience(0.2)
    )
    first = done.first_failure
    assert done.exit_code == 3
    assert first is not None
    assert (first.rank, first.returncode, first.tail) == (1, 3, ("last words of 1",))


def test_a_rank_that_raises(start: Launches) -> None:
    done = start(2, "if rank == 0: raise RuntimeError('no data')\ntime.sleep(60)", patience=Patience(0.2))
    assert done.exit_code == 1
    assert done.first_failure is not None
    assert done.first_failure.rank == 0
    assert done.first_failure.tail[-1] == "RuntimeError: no data"
    assert start.errors.count("RuntimeError: no data") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_rank_that_a_signal_ends(start: Launches, number: signal.Signals) -> None:
    body = f"if rank == 1: print('dying', flush=True); os.kill(os.getpid(), {number.value})\ntime.sleep(60)"
    done = start(2, body, patience=Patience(0.2))
    assert done.exit_code == 128 + number
    assert done.first_failure is not None
    assert (done.first_failure.rank, done.first_failure.returncode) == (1, -number)
    assert done.first_failure.tail == ("dying",)


def test_the_others_may_go_on_after_a_failure(mpich: Launches) -> None:
    body = """
        if rank == 0:
            (folder / "failing").touch()
            sys.exit(3)
        while not (folder / "failing").exists():
            time.sleep(0.01)
        (folder / "survived").touch()
    """
    done = mpich(2, body, end_on_failure=False)
    assert done.exit_code == 3
    assert (mpich.folder / "survived").exists()


NOTES_SIGNALS = """
    def note(number, frame):
        with open(folder / f"signals.{rank}", "a") as file:
            print(number, file=file)
        if "stubborn" not in sys.argv:
            os._exit(0)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    (folder / f"pid.{rank}").write_text(f"{os.getpid()}\\n")
    while True:
        time.sleep(60)
"""


def interrupting(folder: Path, number: int, ranks: int) -> None:
    """Sends this process a signal once all ranks run."""

    def send() -> None:
        for rank in range(ranks):
            number_in(folder / f"pid.{rank}")
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_reach_each_rank_once(start: Launches, number: signal.Signals) -> None:
    interrupting(start.folder, number, ranks=2)
    done = start(2, NOTES_SIGNALS, patience=PATIENT)
    assert (done.exit_code, done.stopped_by, done.first_failure) == (128 + number, number, None)
    received = [(start.folder / f"signals.{rank}").read_text().split() for rank in range(2)]
    assert received == [[str(number.value)]] * 2


def test_ranks_that_will_not_end_are_killed(start: Launches) -> None:
    interrupting(start.folder, signal.SIGINT, ranks=2)
    done = start(2, NOTES_SIGNALS, "stubborn", patience=Patience(stop=0.3))
    assert (done.exit_code, done.stopped_by) == (130, signal.SIGINT)
    ranks = [number_in(start.folder / f"pid.{rank}") for rank in range(2)]
    until(lambda: all(map(gone, ranks)))  # killed ones take a moment


def test_a_script_sees_ctrl_c_as_it_would_alone(start: Launches) -> None:
    body = """
        try:
            (folder / f"pid.{rank}").write_text(f"{os.getpid()}\\n")
            time.sleep(60)
        except KeyboardInterrupt:
            (folder / f"saved.{rank}").touch()
    """
    interrupting(start.folder, signal.SIGINT, ranks=2)
    assert start(2, body, patience=PATIENT).exit_code == 130
    assert [(start.folder / f"saved.{rank}").exists() for rank in range(2)] == [True, True]


def test_ranks_do_not_outlive_a_killed_launcher(start: Launches) -> None:
    (start.folder / "script.py").write_text(start.source(NOTES_SIGNALS))
    command = [sys.executable, "-m", "hvd_gossip.launch.cli", "-np", "2", "--mpirun", start.mpirun]
    with subprocess.Popen([*command, str(start.folder / "script.py")], env=start.environ()) as launcher:
        ranks = [number_in(start.folder / f"pid.{rank}") for rank in range(2)]
        launcher.kill()
    until(lambda: all(map(gone, ranks)))
    until(lambda: not marked(MARK, str(start.folder)))


def test_a_killed_mpi_launcher_leaves_no_files(start: Launches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open MPI 5 would, and then refuse to start once a process number comes round again (openpmix #4022)."""
    temporary = start.folder / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    done = start(
        2,
        "import psutil; psutil.Process().parents()[1].kill(); time.sleep(60)",
        env={"TMPDIR": str(temporary)},
    )
    assert done.exit_code != 0
    assert list(temporary.iterdir()) == []


def seen_by_ranks(start: Launches, np: int, expression: str, **more: Any) -> list[Any]:
    """What an expression is on each rank."""
    done = start(np, f"(folder / f'{{rank}}.json').write_text(json.dumps({expression}))", **more)
    assert done.exit_code == 0, start.errors
    return [json.loads((start.folder / f"{rank}.json").read_text()) for rank in range(np)]


def test_settings_and_variables_reach_the_ranks(start: Launches) -> None:
    names = ("HVD_GOSSIP_ALGORITHM", "HOROVOD_CYCLE_TIME", "OWN", "OMP_NUM_THREADS", "_HVD_GOSSIP_AGENT")
    env = {"HOROVOD_CYCLE_TIME": "3.5", "OWN": "two words, 'quoted'\nand lines"}
    settings = {"algorithm": "adpsgd", "threads_per_rank": 3}
    seen = seen_by_ranks(start, 2, f"[os.environ.get(name) for name in {names}]", env=env, settings=settings)
    assert seen == [["adpsgd", "3.5", env["OWN"], "3", None]] * 2


def test_import_horovod_means_this_package(start: Launches) -> None:
    (start.folder / "site").mkdir()
    (start.folder / "site" / "horovod.py").write_text("__version__ = 'the real one'")
    expression = "[__import__('horovod').__version__, sys.path[0] == str(folder)]"
    more = {"PYTHONPATH": f"{ROOT}:{start.folder / 'site'}"}
    assert seen_by_ranks(start, 2, expression, env=more) == [[VERSION, True]] * 2


def test_and_so_it_does_in_the_processes_that_ranks_start(start: Launches) -> None:
    body = "[subprocess.check_output([sys.executable, '-c', 'import horovod; print(horovod.__version__)'], text=True)]"
    seen = seen_by_ranks(
        start, 1, body.replace("subprocess", "__import__('subprocess')"), env={"PYTHONPATH": str(ROOT)}
    )
    assert seen == [[VERSION + "\n"]]


def test_more_ranks_than_cores(start: Launches) -> None:
    cores = len(os.sched_getaffinity(0))
    assert seen_by_ranks(start, cores + 1, "len(os.sched_getaffinity(0))") == [cores] * (cores + 1)  # and none is bound


def test_hosts_that_are_this_one(start: Launches) -> None:
    assert seen_by_ranks(start, 2, "rank", hosts=[Host("localhost", 2)]) == [0, 1]
    assert seen_by_ranks(start, 3, "rank", hosts=[Host("localhost", 1)]) == [0, 1, 2]


def test_ranks_have_no_input_and_no_terminal_when_the_launcher_s_output_is_none(start: Launches) -> None:
    seen = seen_by_ranks(start, 2, "[sys.stdin.read(), os.isatty(1), os.isatty(2)]")
    assert seen == [["", False, False]] * 2


def test_progress_bars_arrive_on_a_terminal_before_their_line_ends(start: Launches) -> None:
    body = """
        assert sys.stderr.isatty() and os.get_terminal_size(2).columns == 99
        sys.stderr.write("\\r 50%")
        sys.stderr.flush()
        while not (folder / "seen").exists():
            time.sleep(0.01)
        print("\\r100%", file=sys.stderr)
    """
    (start.folder / "script.py").write_text(start.source(body))
    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 99, 0, 0))
    command = [sys.executable, "-m", "hvd_gossip.launch.cli", "-np", "1", "--mpirun", start.mpirun]
    with subprocess.Popen(
        [*command, str(start.folder / "script.py")], env=start.environ(), stdout=terminal, stderr=terminal
    ) as launcher:
        os.close(terminal)
        shown = b""
        while b"\r 50%" not in shown:
            shown += os.read(reader, 1000)
        (start.folder / "seen").touch()
        while b"\r100%" not in shown:
            shown += os.read(reader, 1000)
    os.close(reader)
    assert launcher.returncode == 0


def test_output_goes_to_files_as_well(start: Launches) -> None:
    """Horovod's --output-filename: FOLDER/rank.N/stdout and stderr, N padded."""
    body = "print('to stdout of', rank); print('to stderr of', rank, file=sys.stderr)"
    assert start(11, body, output=Output(str(start.folder / "logs"))).exit_code == 0
    folders = [start.folder / "logs" / f"rank.{rank:02}" for rank in range(11)]
    assert [(folder / "stdout").read_text() for folder in folders] == [f"to stdout of {rank}\n" for rank in range(11)]
    assert [(folder / "stderr").read_text() for folder in folders] == [f"to stderr of {rank}\n" for rank in range(11)]
    assert sorted(start.output.splitlines()) == sorted(f"to stdout of {rank}" for rank in range(11))


def test_output_that_cannot_be_written_is_an_error_of_the_rank(start: Launches) -> None:
    (start.folder / "logs").touch()
    done = start(1, "(folder / 'ran').touch()", output=Output(str(start.folder / "logs" / "run")))
    assert done.exit_code != 0
    assert f"{start.folder}/logs/run cannot be written on" in start.errors
    assert not (start.folder / "ran").exists()


def test_lines_begin_with_the_time(start: Launches) -> None:
    assert start(2, "print('one\\ntwo')", output=Output(timestamps=True)).exit_code == 0
    lines = start.output.splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (one|two)", line) for line in lines)
    assert len(lines) == 4


def idle_mpirun(folder: Path, then: str) -> str:
    """Something that says it is mpirun, and starts no rank."""
    path = folder / "mpirun"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo "mpirun (Open MPI) 5.0.11"\n{then}\n')
    path.chmod(0o755)
    return str(path)


def test_ranks_that_do_not_start_in_time_are_named_and_the_job_ends(tmp_path: Path) -> None:
    """horovodrun's --start-timeout."""
    plan = make_plan(2, ["sh"], start_timeout=0.3, mpirun=idle_mpirun(tmp_path, "sleep 600"))
    done = launch(plan)
    assert (done.exit_code, done.late, done.missing, done.stopped_by) == (1, True, (0, 1), None)


def test_without_a_time_limit_a_slow_start_is_awaited(tmp_path: Path) -> None:
    plan = make_plan(2, ["sh"], start_timeout=0, mpirun=idle_mpirun(tmp_path, "sleep 0.5; exit 7"))
    done = launch(plan)
    assert (done.exit_code, done.late, done.missing) == (7, False, (0, 1))


def test_nothing_starts_with_a_wrong_setting(start: Launches) -> None:
    with pytest.raises(ConfigError, match="Valid: auto, allreduce"):
        start(2, "(folder / 'started').touch()", settings={"algorithm": "sgd"})
    assert not (start.folder / "started").exists()


@pytest.mark.parametrize("np", [1, 2, 4])
def test_ranks_are_one_mpi_world(np: int) -> None:
    """With this Python's own MPI, through the installed program."""
    source = """
        from mpi4py import MPI
        from tests.mpi import report

        report([MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, MPI.COMM_WORLD.allreduce(1)])
    """
    done = run_ranks(np, source, launcher="hvd-gossip-run", timeout=LIMIT)
    assert done.in_rank_order() == [[rank, np, np] for rank in range(np)]


def test_mpi_s_own_code_counts_where_ranks_only_ended_as_they_were_told() -> None:
    told = RankEnd(0, "host", 1, -signal.SIGTERM, True, 1.0, ())
    failed = RankEnd(1, "host", 2, 3, False, 1.0, ())
    assert _exit_code(Outcome(6, None), (told,)) == 6
    assert _exit_code(Outcome(-signal.SIGKILL, None), (told,)) == 137
    assert _exit_code(Outcome(0, None), (told,)) == 143
    assert _exit_code(Outcome(6, None), (told, failed)) == 3
    assert _exit_code(Outcome(6, signal.SIGINT), (told, failed)) == 130


def test_a_rank_that_fails_inside_mpi_is_named() -> None:
    source = """
        import os
        from mpi4py import MPI

        MPI.COMM_WORLD.Barrier()
        if MPI.COMM_WORLD.rank == 2:
            print("last words", flush=True)
            os._exit(5)
        MPI.COMM_WORLD.Barrier()
    """
    done = run_ranks(3, source, launcher="hvd-gossip-run", check=False, timeout=LIMIT)
    assert done.returncode == 5
    assert re.search(r"rank 2 on \S+ failed first, after .* s: exit code 5\n.*\n  last words", done.stderr)


def test_mpi_abort_ends_the_job_with_its_code() -> None:
    source = """
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == 1:
            MPI.COMM_WORLD.Abort(6)
        MPI.COMM_WORLD.Barrier()
    """
    done = run_ranks(2, source, launcher="hvd-gossip-run", check=False, timeout=LIMIT)
    assert done.returncode == 6
