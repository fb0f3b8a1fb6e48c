"""Runs a file's `check_...` functions in real ranks, all in one launch, and gives each check's outcome to its own test.

A check runs on every rank at the same time and asserts what it wants. The first that fails ends the run.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.mpi import Completed, report, run_ranks

FOLDER = Path(__file__).parent
WAIT_TIMEOUT = "20"
"""Seconds after which a rank that is left alone by the others gives up."""
RANKS = [1, 2, 3, pytest.param(4, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
"""Numbers of ranks; odd and prime ones, for assumptions about powers of two."""


def checks_in(file: str) -> list[str]:
    """The names of the checks that a file defines, in order; the file is not imported."""
    return re.findall(r"^def (check_\w+)", (FOLDER / file).read_text(), re.MULTILINE)


def assert_passed(file: str, check: str, n: int, timeout: float = 55.0) -> None:
    """Asserts that a check passed on all of `n` ranks."""
    done = outcomes(file, n, timeout)
    for rank in range(n):
        outcome = done.results.get(rank, {}).get(check, f"did not run\n{done.stdout}\n{done.stderr}")
        assert outcome == "passed", f"rank {rank}: {outcome}"


@functools.cache
def outcomes(file: str, n: int, timeout: float) -> Completed:
    """What each rank reported of each check. One launch for all tests of a file."""
    environment = {"HVD_GOSSIP_WAIT_TIMEOUT": WAIT_TIMEOUT, "HVD_GOSSIP_REPORT": "0"}
    launcher = "none" if n == 1 else "mpirun"
    return run_ranks(n, FOLDER / file, env=environment, timeout=timeout, launcher=launcher, check=False)


def run_checks(namespace: Mapping[str, Any], **settings: Any) -> None:
    """In a rank: runs the checks and reports. For the end of a file of checks.

    Args:
        settings: arguments of `init`.
    """
    import hvd_gossip.torch as hvd

    warnings_are_errors()
    only = os.environ.get("ONLY", "")
    checks: dict[str, Callable[[], None]] = {
        name: check for name, check in namespace.items() if name.startswith("check_") and only in name
    }
    hvd.init(**settings)
    results: dict[str, str] = {}
    for name, check in checks.items():
        try:
            hvd.barrier()
            check()
            results[name] = "passed"
        except BaseException:
            results[name] = traceback.format_exc()
            report(results)
            raise
        report(results)
    hvd.shutdown()


def warnings_are_errors() -> None:
    """As in pytest's own process."""
    import warnings

    warnings.simplefilter("error")


if __name__ == "__main__":
    sys.exit("this file is imported by files of checks")
