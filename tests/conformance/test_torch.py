"""What Horovod documents, over PyTorch in real ranks: as hvd_gossip.torch, and as horovod.torch under the launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.lists import cases_of
from tests.ranks import assert_passed

MAIN = Path(__file__).with_name("rank_main.py")
CASES = cases_of("torch")
SECONDS = 170.0
"""For all cases of one launch."""


GOSSIP = ("adpsgd", "dpsgd", "sgp")
"""Algorithms under which everything but the averaging of gradients is as documented."""
PAIRS = [
    pytest.param(n, case.name, marks=[] if n in (1, 3) else [pytest.mark.slow], id=f"{n}-{case.name}")
    for n in (1, 2, 3, 4, 5)
    for case in CASES
    if case.runs_with(n)
]
"""Numbers of ranks and the cases that are about them."""


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(("n", "case"), PAIRS)
def test_hvd_gossip(n: int, case: str) -> None:
    assert_passed(MAIN, case, n, SECONDS, "torch", "hvd_gossip.torch")


@pytest.mark.slow  # tests/compat shows that the modules are the same objects
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize("case", [case.name for case in CASES if case.runs_with(2)])
def test_horovod(case: str) -> None:
    assert_passed(MAIN, case, 2, SECONDS, "torch", "horovod.torch", launcher="hvd-gossip-run")


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize("algorithm", GOSSIP)
@pytest.mark.parametrize("case", [case.name for case in CASES if case.runs_with(3, GOSSIP[0])])
def test_gossip(case: str, algorithm: str) -> None:
    assert_passed(MAIN, case, 3, SECONDS, "torch", "hvd_gossip.torch", algorithm)
