"""Runs this folder's `check_...` functions in real ranks, all files in one launch: importing TensorFlow takes seconds."""

from __future__ import annotations

from pathlib import Path

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests import ranks
from tests.marks import slow_except
from tests.ranks import FEW
from tests.tensorflow_frontend.ranks import needs_tensorflow as needs_tensorflow

FOLDER = Path(__file__).parent
MAIN = FOLDER / "rank_main.py"
SECONDS = 1500.0
"""For all checks of one launch with all algorithms."""
SECONDS_WITH_FEW = 600.0
WAIT_TIMEOUT = 75
"""Seconds. After many `fit`, the main thread was seen to stand for 40 in TensorFlow's destructor of a data set's iterator, with
Python's lock held; its tuning thread, which may sleep for up to 60, is the likely reason."""
RANKS = slow_except(range(1, 4), 2)


def files() -> list[str]:
    """The modules of checks."""
    return sorted(path.stem for path in FOLDER.glob("check_*.py"))


def checks() -> list[str]:
    """The names of all checks, as `file.check`; no file is imported."""
    return [f"{file}.{check}" for file in files() for check in ranks.checks_in(FOLDER / f"{file}.py")]


def assert_passed(check: str, n: int) -> None:
    """Asserts that a check passed on all of `n` ranks."""
    algorithms, seconds = (ALGORITHMS, SECONDS) if n == 3 else (FEW, SECONDS_WITH_FEW)
    ranks.assert_passed(MAIN, check, n, seconds, algorithms=algorithms, wait_timeout=WAIT_TIMEOUT)
