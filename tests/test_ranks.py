"""What runs checks in real ranks: each check's own outcome, and nothing after one that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ranks import KINDS, assert_passed, checks_in, outcomes

SCRIPT = """
import sys
import hvd_gossip.torch as hvd
from tests.ranks import run_checks


def check_well():
    assert sys.argv[1:] == ["word"]


def check_badly():
    assert hvd.rank() < 0, "no such rank"


def check_afterwards():
    pass


run_checks(hvd, {name: value for name, value in globals().items() if name.startswith("check_")})
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "checks.py"
    path.write_text(SCRIPT)
    return path


def test_checks_are_found_in_order(script: Path) -> None:
    assert checks_in(script) == ["check_well", "check_badly", "check_afterwards"]


def test_one_launch_serves_all_who_ask_for_it(script: Path) -> None:
    assert outcomes(script, 1, 50, "word") is outcomes(script, 1, 50, "word", launcher="mpirun", algorithms=KINDS)


def test_each_check_has_its_own_outcome(script: Path) -> None:
    assert_passed(script, "check_well", 1, 50, "word")
    with pytest.raises(AssertionError, match="no such rank"):
        assert_passed(script, "check_badly", 1, 50, "word")
    with pytest.raises(AssertionError, match="did not run"):
        assert_passed(script, "check_afterwards", 1, 50, "word")
