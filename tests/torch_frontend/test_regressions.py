"""What users of Horovod's PyTorch side reported, in real ranks."""

from __future__ import annotations

import re

import pytest

from tests.mpi import run_ranks
from tests.torch_frontend.ranks import RANKS, assert_passed, checks_in

FILE = "check_regressions.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("check", checks_in(FILE))
def test_reported(check: str, n: int) -> None:
    assert_passed(FILE, check, n, timeout=300)


STALLED = """
from contextlib import suppress

import hvd_gossip.torch as hvd
import torch
from tests.mpi import report

hvd.init()
mine = "odd" if hvd.rank() == 1 else "even"
try:
    hvd.allreduce(torch.ones(2), name=mine)
except hvd.HorovodInternalError as error:
    report(str(error))
with suppress(hvd.HorovodInternalError):
    hvd.barrier()  # nobody leaves before the others have their errors: they would be told of that instead
"""


def test_2107_a_stall_names_tensors_and_ranks() -> None:
    """horovod#2107, #403, #100: ranks that submit tensors of different names waited for ever, and nothing said which ones."""
    environment = {
        "HOROVOD_STALL_CHECK_TIME_SECONDS": "0.2",
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "5",
        "HVD_GOSSIP_REPORT": "0",
    }
    done = run_ranks(3, STALLED, env=environment, check=False)
    assert "allreduce.even" in done.stderr
    assert "allreduce.odd" in done.stderr
    assert set(done.results) == {0, 1, 2}
    assert "'allreduce.odd'" in done.results[1]
    for rank in (0, 2):
        assert "'allreduce.even'" in done.results[rank]
        assert re.search(r"rank 1 |ranks 1-2 ", done.results[rank]), "rank 2 may not have come by then"
