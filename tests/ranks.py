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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.marks import slow_except
from tests.mpi import Completed, report, run_ranks

WAIT_TIMEOUT = 20
"""Seconds after which a rank that is left alone by the others gives up."""
RANKS = slow_except(range(1, 6), 3)
"""Numbers of ranks; odd and prime ones, for assumptions about powers of two. What is documented runs with 1 and 2 as well, in
the conformance suite (slow, but for PyTorch's 1)."""


ALGORITHMS_OF_CHECKS = "HVD_TEST_ALGORITHMS"
"""The variable that says to a launch which algorithms its checks go through; commas between them."""
KINDS = ("allreduce", "dpsgd", "adpsgd", "sgp", "asgd", "relaysgd")
"""One algorithm of each kind: none, synchronous, pairwise, push-sum, with a server, with a memory. The default."""
FEW = ("allreduce", "dpsgd", "adpsgd")
"""What makes a difference to a framework's part, where each model takes a third of a second to trace."""
UNDER_TEST = {
    name: kind
    for name, kind in ALGORITHMS.items()
    if name in os.environ.get(ALGORITHMS_OF_CHECKS, ",".join(KINDS)).split(",")
}
"""In a rank: the algorithms that checks go through. What is one algorithm's own is tested in the simulator, for all."""


def checks_in(path: Path) -> list[str]:
    """The names of the `check_...` functions that a file defines, in order; the file is not imported."""
    return re.findall(r"^def (check_\w+)", path.read_text(), re.MULTILINE)


def assert_passed(path: Path, check: str, n: int, timeout: float, *args: str, **more: Any) -> None:
    """Asserts that a check passed on all of `n` ranks. The arguments beside it are those of `outcomes`."""
    done = outcomes(path, n, timeout, *args, **more)
    for rank in range(n):
        outcome = done.results.get(rank, {}).get(check, f"did not run\n{done.stdout}\n{done.stderr}")
        assert outcome == "passed", f"rank {rank}: {outcome}"


def outcomes(
    path: Path,
    n: int,
    timeout: float,
    *args: str,
    launcher: str = "mpirun",
    algorithms: Iterable[str] | None = None,
    wait_timeout: int = WAIT_TIMEOUT,
) -> Completed:
    """What each rank reported of each check. One launch for all tests of a script.

    Args:
        path: the script, which calls `run_checks`.
        timeout: seconds for all of the script's checks together.
        args: the script's.
        launcher: as for `run_ranks`. One rank under mpirun needs no launcher.
        algorithms: those that checks go through; by default KINDS, or with four ranks and more all, which is slow.
        wait_timeout: seconds after which a rank that is left alone by the others gives up.
    """
    if algorithms is None:
        algorithms = KINDS if n < 4 else ALGORITHMS
    return _launch(path, n, timeout, args, launcher, tuple(algorithms), wait_timeout)


@functools.cache
def _launch(
    path: Path,
    n: int,
    timeout: float,
    args: tuple[str, ...],
    launcher: str,
    algorithms: tuple[str, ...],
    wait_timeout: int,
) -> Completed:
    environment = {
        "HVD_GOSSIP_WAIT_TIMEOUT": str(wait_timeout),
        "HVD_GOSSIP_REPORT": "0",
        ALGORITHMS_OF_CHECKS: ",".join(algorithms),
    }
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
