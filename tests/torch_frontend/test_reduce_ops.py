"""Allreduce, of one tensor and of several, in real ranks."""

import pytest

from tests.torch_frontend.ranks import RANKS, assert_passed, checks_in

FILE = "check_reduce_ops.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("check", checks_in(FILE))
def test_reduce_ops(check: str, n: int) -> None:
    assert_passed(FILE, check, n, timeout=300)
