"""Operations and optimizers in process sets, in real ranks."""

import pytest

from tests.torch_frontend.ranks import RANKS, assert_passed, checks_in

FILE = "check_process_sets.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("check", checks_in(FILE))
def test_process_sets(check: str, n: int) -> None:
    assert_passed(FILE, check, n, timeout=300)
