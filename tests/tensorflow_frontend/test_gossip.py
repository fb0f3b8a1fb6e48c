"""Gossip with a gradient tape and with optimizers of tf.compat.v1, in real ranks."""

import pytest

from tests import ranks
from tests.tensorflow_frontend.ranks import FOLDER, SECONDS, needs_tensorflow

CHECKS = ranks.checks_in(FOLDER / "gossip_checks.py")
RUNS = [
    pytest.param("dpsgd", 3, id="dpsgd"),
    pytest.param("adpsgd", 2, id="adpsgd"),
    pytest.param("sgp", 2, id="sgp", marks=pytest.mark.slow),
]


@needs_tensorflow
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(("algorithm", "n"), RUNS)
@pytest.mark.parametrize("check", CHECKS)
def test_gossip(check: str, algorithm: str, n: int) -> None:
    ranks.assert_passed(FOLDER / "gossip_main.py", check, n, SECONDS, algorithm)
