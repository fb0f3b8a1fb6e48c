"""Gossip with a gradient tape and with optimizers of tf.compat.v1, in real ranks."""

import pytest

from tests import ranks
from tests.tensorflow_frontend.ranks import FOLDER, SECONDS, needs_tensorflow

CHECKS = ranks.checks_in(FOLDER / "gossip_checks.py")
RUNS = [("dpsgd", 3), ("adpsgd", 3), pytest.param("sgp", 2, marks=pytest.mark.slow)]


@needs_tensorflow
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(("algorithm", "n"), RUNS)
@pytest.mark.parametrize("check", CHECKS)
def test_gossip(check: str, algorithm: str, n: int) -> None:
    together = ["dpsgd", "adpsgd"] if n == 3 else [algorithm]
    ranks.assert_passed(FOLDER / "gossip_main.py", f"{algorithm}: {check}", n, SECONDS, *together)
