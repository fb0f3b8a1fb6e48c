"""Runs this folder's files of `check_...` functions in real ranks, all files in one launch: importing TensorFlow takes
seconds. See `tests.ranks`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests import ranks
from tests.marks import slow_except

FOLDER = Path(__file__).parent
MAIN = FOLDER / "rank_main.py"
RANKS = slow_except(range(1, 6), 2)
SECONDS = 350.0
"""For all checks of one launch."""
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed: pip install tensorflow-cpu"
)


def files() -> list[str]:
    """The modules of checks."""
    return sorted(path.stem for path in FOLDER.glob("check_*.py"))


def checks() -> list[str]:
    """The names of all checks, as `file.check`; no file is imported."""
    return [f"{file}.{check}" for file in files() for check in ranks.checks_in(FOLDER / f"{file}.py")]


def assert_passed(check: str, n: int) -> None:
    """Asserts that a check passed on all of `n` ranks."""
    ranks.assert_passed(MAIN, check, n, SECONDS)
