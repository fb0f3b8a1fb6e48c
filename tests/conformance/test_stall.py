"""Horovod's stall check: what some ranks have not submitted is reported, and in the end fails."""

from __future__ import annotations

import re

import pytest

from tests.mpi import run_ranks

SCRIPT = """
from contextlib import suppress

import hvd_gossip.torch as hvd
import torch
from tests.mpi import report

hvd.init()
name = "of rank 0 only" if hvd.rank() == 0 else "of rank 1 only"
try:
    hvd.allreduce(torch.ones(3), name=name)
except hvd.HorovodInternalError as error:
    report(str(error))
with suppress(hvd.HorovodInternalError):
    hvd.barrier()  # nobody leaves before the others have their errors: they would be told of that instead
"""


def _run(environment: dict[str, str]) -> tuple[str, list[str]]:
    done = run_ranks(2, SCRIPT, env=environment, check=False)
    return done.stderr, done.in_rank_order()


@pytest.fixture(scope="module")
def stalled() -> tuple[str, list[str]]:
    """What two ranks wrote that never submitted the same name, and the errors that they got."""
    return _run(
        {
            "HOROVOD_STALL_CHECK_TIME_SECONDS": "1",
            "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "6",
            "HVD_GOSSIP_WAIT_TIMEOUT": "30",
        }
    )


def test_a_stall_is_reported_with_tensors_and_missing_ranks(stalled: tuple[str, list[str]]) -> None:
    """Stall inspector: names the tensors that a subset of ranks submitted, and the ranks that are missing."""
    text = stalled[0]
    assert (
        "One or more tensors were submitted to be reduced, gathered or broadcasted by subset of ranks and are waiting for "
        "remainder of ranks for more than 1 seconds." in text
    )
    for rank, missing in ((0, 1), (1, 0)):
        reports = [line for line in text.splitlines() if f"of rank {rank} only" in line and "missing" in line]
        assert reports
        assert re.search(rf"missing.*\b{missing}\b", reports[0])


def test_a_stall_ends_in_an_error_on_every_rank(stalled: tuple[str, list[str]]) -> None:
    """HOROVOD_STALL_SHUTDOWN_TIME_SECONDS: the time after which the job is shut down."""
    errors = stalled[1]
    assert len(errors) == 2
    for rank, error in enumerate(errors):
        assert f"rank {1 - rank} " in error


def test_the_stall_check_can_be_disabled() -> None:
    """HOROVOD_STALL_CHECK_DISABLE=1: no report; here all give up waiting in the end."""
    text, errors = _run(
        {
            "HOROVOD_STALL_CHECK_DISABLE": "1",
            "HOROVOD_STALL_CHECK_TIME_SECONDS": "1",
            "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "2",
            "HVD_GOSSIP_WAIT_TIMEOUT": "4",
        }
    )
    assert "One or more tensors were submitted" not in text
    assert len(errors) == 2
