"""What Horovod documents, over TensorFlow in real ranks: as hvd_gossip.tensorflow, and as horovod.tensorflow under the
launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.conformance.lists import cases_of
from tests.ranks import assert_passed
from tests.tensorflow_frontend.ranks import needs_tensorflow

MAIN = Path(__file__).with_name("rank_main.py")
CASES = cases_of("tensorflow")
SECONDS = 170.0
"""For all cases of one launch."""

GOSSIP = tuple(name for name, algorithm in ALGORITHMS.items() if algorithm.averages == "parameters")
"""Algorithms under which everything but the averaging of gradients is as documented; all of them in one launch."""
GOSSIP_SECONDS = 60.0 + 60.0 * len(GOSSIP)
PAIRS = [
    pytest.param(n, case.name, marks=[] if n == 3 else [pytest.mark.slow], id=f"{n}-{case.name}")
    for n in (1, 2, 3, 4, 5)
    for case in CASES
    if case.runs_with(n)
]
"""Numbers of ranks and the cases that are about them."""


@needs_tensorflow
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(("n", "case"), PAIRS)
def test_hvd_gossip(n: int, case: str) -> None:
    assert_passed(MAIN, case, n, SECONDS, "tensorflow", "hvd_gossip.tensorflow")


@needs_tensorflow
@pytest.mark.slow  # tests/compat shows that the modules are the same objects
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize("case", [case.name for case in CASES if case.runs_with(2)])
def test_horovod(case: str) -> None:
    assert_passed(MAIN, case, 2, SECONDS, "tensorflow", "horovod.tensorflow", launcher="hvd-gossip-run")


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.timeout(GOSSIP_SECONDS + 10)
@pytest.mark.parametrize("algorithm", GOSSIP)
@pytest.mark.parametrize("case", [case.name for case in CASES if case.runs_with(3, GOSSIP[0])])
def test_gossip(case: str, algorithm: str) -> None:
    name, algorithms = f"{algorithm}: {case}", ",".join(GOSSIP)
    assert_passed(MAIN, name, 3, GOSSIP_SECONDS, "tensorflow", "hvd_gossip.tensorflow", algorithms)
