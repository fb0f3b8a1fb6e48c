"""Runs a module of `benchmarks.ranks` on MPI ranks, through the package's launcher, and collects what they return.

The driver calls `run_ranks`; the module's `main` calls `serve` with the function that measures.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from benchmarks.options import Options, from_json

O = TypeVar("O", bound=Options)  # noqa: E741
ROOT = Path(__file__).resolve().parent.parent
TAIL_LINES = 40
POLL_SECONDS = 0.02


class JobFailed(RuntimeError):
    """Ranks failed or took too long; the message holds the end of their output."""


@dataclass(frozen=True)
class Job:
    """A finished launch.

    Attributes:
        results: what the ranks returned, in the order of ranks.
        command: what was launched, as hvd-gossip-run would be told.
    """

    results: list[Any]
    command: str


def run_ranks(module: str, ranks: int, options: Options, **arguments: object) -> Job:
    """Runs `benchmarks.ranks.<module>` and waits for it.

    Args:
        module: its last name.
        ranks: how many.
        options: the knobs, which the ranks get as well; `options.timeout` bounds the run.
        arguments: what else the ranks are told (JSON).

    Raises:
        JobFailed: a rank failed, ran out of time, or returned nothing.
    """
    from hvd_gossip.launch.launcher import launch  # the ranks import this module, and need no launcher
    from hvd_gossip.launch.plan import make_plan

    name = f"benchmarks.ranks.{module}"
    told = {"options": asdict(options), "arguments": arguments}
    with tempfile.TemporaryDirectory(prefix="hvd-bench-") as directory, Path(directory, "output").open("w+b") as output:
        Path(directory, "told.json").write_text(json.dumps(told))
        command = [sys.executable, "-m", name, directory]
        plan = make_plan(ranks, command, {"threads_per_rank": 1}, environ=_environment())
        result = launch(plan, stdout=output, stderr=output)
        if result.stopped_by:
            raise KeyboardInterrupt
        results = _results(Path(directory))
        if result.exit_code or len(results) != ranks:
            raise JobFailed(f"{name} ended with exit code {result.exit_code}:\n{_tail(output)}")
    told_words = "".join(f" {key}={value}" for key, value in arguments.items())
    return Job(results, f"hvd-gossip-run -np {ranks} --threads-per-rank 1 python -m {name}{told_words}")


def serve(kind: type[O], measure: Callable[..., Any]) -> None:
    """A rank's main: runs `measure(options, meeting, **arguments)` and hands its result to the driver.

    The process ends, with the stacks of its threads on stderr, when the time-out is over.
    """
    directory = Path(sys.argv[1])
    told = json.loads(Path(directory, "told.json").read_text())
    options = from_json(kind, told["options"])
    faulthandler.dump_traceback_later(options.timeout, exit=True)
    result = measure(options, Meeting(directory), **told["arguments"])
    path = Path(directory, f"{rank_of(os.environ):06}.result")
    path.with_suffix(".part").write_text(json.dumps(result, default=lambda array: array.tolist()))
    path.with_suffix(".part").replace(path)
    faulthandler.cancel_dump_traceback_later()


def rank_of(environ: Mapping[str, str]) -> int:
    """This process's rank, from what MPI's launcher says to it: also where the process uses no MPI.

    Raises:
        RuntimeError: no launcher of MPI has started the process.
    """
    for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"):
        if name in environ:
            return int(environ[name])
    raise RuntimeError("no MPI launcher started this process: run the benchmark's own module, not the one of its ranks")


class Meeting:
    """Ranks wait for each other asleep, by means of files: a barrier of MPI, or ours, would take CPU time meanwhile.

    Args:
        directory: of this launch, on a disk that all ranks see.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._rank = rank_of(os.environ)
        self._numbers: dict[str, int] = {}

    def arrive(self, name: str) -> None:
        """Says that this rank has come to `name`, once more."""
        self._numbers[name] = number = self._numbers.get(name, 0) + 1
        Path(self.directory, f"{name}.{number}.{self._rank}").touch()

    def here(self, name: str, rank: int, number: int) -> bool:
        """Whether a rank has come to `name` for the `number`-th time (from 1)."""
        return Path(self.directory, f"{name}.{number}.{rank}").exists()

    def all_here(self, name: str, ranks: int) -> None:
        """Comes to `name` and waits, asleep, for all ranks to come there."""
        self.arrive(name)
        number = self._numbers[name]
        for rank in range(ranks):
            while not self.here(name, rank, number):
                time.sleep(POLL_SECONDS)


def _environment() -> dict[str, str]:
    """This process's, with which the ranks find the benchmarks wherever they were started."""
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *([inherited] if inherited else [])])}


def _results(directory: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(directory.glob("*.result"))]


def _tail(output: IO[bytes]) -> str:
    output.seek(0)
    return "\n".join(output.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
