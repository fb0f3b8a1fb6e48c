"""What DistributedOptimizer returns, in real ranks."""

import pytest

from tests.torch_frontend.ranks import assert_passed, checks_in

FILE = "check_wrapper.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", [2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("check", checks_in(FILE))
def test_wrapper(check: str, n: int) -> None:
    assert_passed(FILE, check, n, timeout=300)
