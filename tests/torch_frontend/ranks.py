"""Runs this folder's files of `check_...` functions in real ranks: see `tests.ranks`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import ranks, torch_device
from tests.mpi import Completed
from tests.ranks import RANKS as RANKS

FOLDER = Path(__file__).parent


def checks_in(file: str) -> list[str]:
    """The names of the checks that a file defines, in order; the file is not imported."""
    return ranks.checks_in(FOLDER / file)


def assert_passed(file: str, check: str, n: int, timeout: float = 55.0, every: bool | None = None) -> None:
    """Asserts that a check passed on all of `n` ranks."""
    ranks.assert_passed(FOLDER / file, check, n, timeout, every=every)


def outcomes(file: str, n: int, timeout: float) -> Completed:
    """What each rank reported of each check. One launch for all tests of a file."""
    return ranks.outcomes(FOLDER / file, n, timeout)


def run_checks(namespace: Mapping[str, Any], *, default_device: bool = True, **settings: Any) -> None:
    """In a rank: runs the checks and reports. For the end of a file of checks.

    Args:
        default_device: whether tensors are on `torch_device.DEVICE` unless a check says otherwise.
        settings: arguments of `init`.
    """
    import hvd_gossip.torch as hvd

    if default_device:
        torch_device.use()
    checks = {name: check for name, check in namespace.items() if name.startswith("check_")}
    ranks.run_checks(hvd, checks, **settings)


if __name__ == "__main__":
    sys.exit("this file is imported by files of checks")
