"""DistributedOptimizer with algorithm allreduce, in real ranks."""

import pytest

from tests.marks import slow_except
from tests.torch_frontend.ranks import assert_passed, checks_in

FILES = ("check_averaging.py", "check_averaging_tools.py")


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", slow_except(range(1, 6), 1, 3))
@pytest.mark.parametrize(("file", "check"), [(file, check) for file in FILES for check in checks_in(file)])
def test_gradient_averaging(file: str, check: str, n: int) -> None:
    assert_passed(file, check, n, timeout=300)
