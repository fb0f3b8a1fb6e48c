"""What DistributedOptimizer returns, in real ranks."""

import pytest

from tests.torch_frontend.ranks import assert_passed, checks_in

FILE = "check_wrapper.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize(("n", "every"), [(2, False), *(pytest.param(n, True, marks=pytest.mark.slow) for n in (1, 2))])
@pytest.mark.parametrize("check", checks_in(FILE))
def test_wrapper(check: str, n: int, every: bool) -> None:
    assert_passed(FILE, check, n, timeout=300, every=every)
