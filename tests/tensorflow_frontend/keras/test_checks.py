"""Keras 3 in real ranks: each check of each `check_*.py`, by number of ranks."""

import pytest

from tests.tensorflow_frontend.keras.ranks import RANKS, SECONDS, assert_passed, checks, needs_tensorflow


@needs_tensorflow
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("check", checks())
def test_keras(check: str, n: int) -> None:
    assert_passed(check, n)
