"""Runs checks in real ranks, all in one launch, and gives each check's outcome to its own test.

A check runs on every rank at the same time and asserts what it wants. The first that fails ends the run.
"""

from __future__ import annotations

import functools
import os
import re
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.mpi import Completed, report, run_ranks

WAIT_TIMEOUT = 20
"""Seconds after which a rank that is left alone by the others gives up."""
RANKS = [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4, 5))]
"""Numbers of ranks; odd and prime ones, for assumptions about powers of two. What is documented runs with 1 and 2 as well, in
the conformance suite."""


EVERY = "HVD_TEST_EVERY_ALGORITHM"
"""Set in launches whose checks go through all algorithms, which are slow."""
KINDS = ("allreduce", "dpsgd", "adpsgd", "sgp", "asgd", "relaysgd")
"""One algorithm of each kind, for all other launches: none, synchronous, pairwise, push-sum, with a server, with a memory."""
UNDER_TEST = {name: kind for name, kind in ALGORITHMS.items() if name in KINDS or os.environ.get(EVERY)}
"""In a rank: the algorithms that checks go through. What is one algorithm's own is tested in the simulator, for all."""


def checks_in(path: Path) -> list[str]:
    """The names of the `check_...` functions that a file defines, in order; the file is not imported."""
    return re.findall(r"^def (check_\w+)", path.read_text(), re.MULTILINE)


def assert_passed(
    path: Path,
    check: str,
    n: int,
    timeout: float,
    *args: str,
    launcher: str = "mpirun",
    every: bool | None = None,
    wait_timeout: int = WAIT_TIMEOUT,
) -> None:
    """Asserts that a check passed on all of `n` ranks.

    Args:
        path: the script, which calls `run_checks`.
        timeout: seconds for all of the script's checks together.
        args: the script's.
        launcher: as for `run_ranks`. One rank under mpirun needs no launcher.
        every: whether checks go through all algorithms; by default with four ranks and more.
        wait_timeout: seconds after which a rank that is left alone by the others gives up.
    """
    done = outcomes(path, n, timeout, args, launcher, n >= 4 if every is None else every, wait_timeout)
    for rank in range(n):
        outcome = done.results.get(rank, {}).get(check, f"did not run\n{done.stdout}\n{done.stderr}")
        assert outcome == "passed", f"rank {rank}: {outcome}"


@functools.cache
def outcomes(
    path: Path,
    n: int,
    timeout: float,
    args: tuple[str, ...] = (),
    launcher: str = "mpirun",
    every: bool = False,
    wait_timeout: int = WAIT_TIMEOUT,
) -> Completed:
    """What each rank reported of each check. One launch for all tests of a script."""
    environment = {"HVD_GOSSIP_WAIT_TIMEOUT": str(wait_timeout), "HVD_GOSSIP_REPORT": "0"}
    if every:
        environment[EVERY] = "1"
    launcher = "none" if n == 1 and launcher == "mpirun" else launcher
    return run_ranks(n, path, args, env=environment, timeout=timeout, launcher=launcher, check=False)


_results: dict[str, str] = {}
"""In a rank: of all checks so far, by name."""


def run_checks(hvd: Any, checks: Mapping[str, Callable[[], None]], **settings: Any) -> None:
    """In a rank: runs the checks (those whose names contain the variable ONLY, if it is set) and reports each.

    Args:
        hvd: the package under test: a framework's.
        settings: arguments of `init`.
    """
    warnings.simplefilter("error")  # as in pytest's own process
    warnings.filterwarnings(
        "ignore", "Sparse invariant checks are implicitly disabled"
    )  # PyTorch 2.11, though they are on
    only = os.environ.get("ONLY", "")
    hvd.init(**settings)
    results = _results
    for name, check in checks.items():
        if only not in name:
            continue
        try:
            hvd.barrier()
            began = time.monotonic()
            check()
            results[name] = "passed"
            # To see where a launch's time goes.
            print(f"[{hvd.rank()}] {name}: {time.monotonic() - began:.1f} s", flush=True)
        except BaseException:
            results[name] = traceback.format_exc()
            report(results)
            raise
        report(results)
    hvd.shutdown()
