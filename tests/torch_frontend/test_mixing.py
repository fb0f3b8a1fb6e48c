"""DistributedOptimizer with gossip algorithms, in real ranks."""

import pytest

from tests.marks import slow_except
from tests.torch_frontend.ranks import assert_passed, checks_in

FILE = "check_mixing.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", slow_except(range(1, 6), 1, 3))
@pytest.mark.parametrize("check", checks_in(FILE))
def test_parameter_mixing(check: str, n: int) -> None:
    assert_passed(FILE, check, n, timeout=300)
