"""Giving every rank the root's parameters and optimizer state, in real ranks."""

import pytest

from tests.torch_frontend.ranks import assert_passed, checks_in

FILE = "check_functions.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize(
    ("n", "every"), [(3, False), *(pytest.param(n, True, marks=pytest.mark.slow) for n in (1, 2, 3))]
)
@pytest.mark.parametrize("check", checks_in(FILE))
def test_functions(check: str, n: int, every: bool) -> None:
    assert_passed(FILE, check, n, timeout=300, every=every)
