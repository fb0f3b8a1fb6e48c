"""Elastic training and its sampler, in real ranks."""

import pytest

from tests.torch_frontend.ranks import RANKS, assert_passed, checks_in

FILES = ["check_elastic_sampler.py", "check_elastic.py"]
CASES = [(file, check) for file in FILES for check in checks_in(file)]


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize(("file", "check"), CASES, ids=[check for _, check in CASES])
def test_elastic(file: str, check: str, n: int) -> None:
    assert_passed(file, check, n, timeout=300)
