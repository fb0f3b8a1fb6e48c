"""One training run of the demo: the launcher as a child process, and what its workers' logs say while it trains."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Record = dict[str, Any]

SCRIPTS = {
    "torch": Path(__file__).with_name("digits_demo.py"),
    "tensorflow": Path(__file__).with_name("digits_demo_tensorflow.py"),
}
"""What is trained, with each framework."""
TRAINING_IMAGES = 1440
POLL_SECONDS = 0.2
STOP_SECONDS = 20.0


class RunFailed(Exception):
    """The launcher ended with an error, or took too long; the message holds the end of its output."""


@dataclass(frozen=True)
class Plan:
    """What to train and how.

    Attributes:
        algorithm: as in `--algorithm`.
        folder: the run's own directory: logs, metrics and the launcher's output; emptied first.
        workers: number of processes.
        slow_worker: the one whose steps are stretched.
        slowdown: how many times as long its steps take.
        epochs: passes over the training images, by all workers together.
        seed: of the data's split, the order of images and the first weights.
        timeout: seconds without any worker's progress after which the run is given up.
        framework: "torch" or "tensorflow".
    """

    algorithm: str
    folder: Path
    workers: int = 4
    slow_worker: int = 3
    slowdown: float = 10.0
    epochs: int = 15
    seed: int = 0
    timeout: float = 180.0
    framework: str = "torch"

    @property
    def shares_work(self) -> bool:
        """Equal shares for allreduce, as every Horovod script has; otherwise who is ready takes the next images."""
        return self.algorithm != "allreduce"

    @property
    def script(self) -> Path:
        return SCRIPTS[self.framework]

    def command(self) -> list[str]:
        script = [self.script, "--epochs", self.epochs, "--seed", self.seed, "--log-dir", self.folder / "logs"]
        launcher = [find_launcher(), "-np", self.workers, "--algorithm", self.algorithm, "--threads-per-rank", 1]
        launcher += ["--inject", f"slow={self.slow_worker}:{self.slowdown:g}", "--metrics-dir", self.metrics_folder]
        share = ["--share-work"] if self.shares_work else []
        return [str(word) for word in (*launcher, sys.executable, *script, *share)]

    @property
    def metrics_folder(self) -> Path:
        return self.folder / "metrics"

    def log_path(self, worker: int) -> Path:
        return self.folder / "logs" / f"worker-{worker}.jsonl"


def find_launcher() -> str:
    """The `hvd-gossip-run` beside this Python, or else the one on the PATH.

    Raises:
        RunFailed: it is not installed.
    """
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("hvd-gossip-run", path=search)
    if found is None:
        raise RunFailed(
            "hvd-gossip-run is not installed; run `make demo`, or: pip install -e '.[torch,mpi,demo]' (or tensorflow)"
        )
    return found


@dataclass
class WorkerLog:
    """Reads what a worker's log gained since the last look."""

    path: Path
    images: int = 0
    steps: list[Record] = field(default_factory=list)
    events: dict[str, Record] = field(default_factory=dict)
    _offset: int = 0

    def read(self) -> None:
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                whole = file.read().rpartition(b"\n")[0]
            self._offset += len(whole) + 1 if whole else 0
            for line in whole.splitlines():
                self._add(json.loads(line))

    def _add(self, record: Record) -> None:
        if record["event"] == "step":
            self.steps.append(record)
            self.images += record["samples"]
        else:
            self.events[record["event"]] = record


Watcher = Callable[[list[WorkerLog]], None]
"""Called a few times a second with the workers' logs as they stand."""


def train(plan: Plan, watch: Watcher = lambda logs: None) -> list[WorkerLog]:
    """Trains under the launcher and returns the workers' complete logs.

    Raises:
        RunFailed: the launcher failed, no worker moved for `plan.timeout`, or a worker left no result.
    """
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.mkdir(parents=True)
    logs = [WorkerLog(plan.log_path(worker)) for worker in range(plan.workers)]
    output = plan.folder / "output.txt"
    with launched(plan.command(), output) as process:
        _follow(process, plan, logs, watch, output)
    if process.returncode != 0:
        raise RunFailed(f"{plan.algorithm} ended with exit code {process.returncode}:\n{_tail(output)}")
    unfinished = [worker for worker, log in enumerate(logs) if "result" not in log.events]
    if unfinished:
        raise RunFailed(f"{plan.algorithm}: workers {unfinished} left no result:\n{_tail(output)}")
    return logs


@contextmanager
def launched(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command with its output in a file; leaving the block stops it if it still runs."""
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            _stop(process)


def _follow(process: subprocess.Popen[bytes], plan: Plan, logs: list[WorkerLog], watch: Watcher, output: Path) -> None:
    moved_at, seen, running = time.monotonic(), 0, True
    while running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
        running = process.poll() is None
        for log in logs:
            log.read()
        watch(logs)
        lines = sum(len(log.steps) + len(log.events) for log in logs)
        if lines > seen:
            moved_at, seen = time.monotonic(), lines
        if running and time.monotonic() - moved_at > plan.timeout:
            raise RunFailed(f"{plan.algorithm}: no worker moved for {plan.timeout:g} s:\n{_tail(output)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()  # the launcher ends its workers
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(output: Path, lines: int = 25) -> str:
    return "\n".join(output.read_text(errors="replace").splitlines()[-lines:])
