"""Where the engine's thread runs, on the cores that this process has."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from hvd_gossip.placement import Placement, sharpen_timers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are placed on Linux only")
PR_GET_TIMERSLACK = 30
CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
CROWD = (os.cpu_count() or 1) + 1
"""More ranks than the host has cores."""


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    yield
    os.sched_setaffinity(0, CORES)


def in_thread(run: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("core", CORES)
def test_it_joins_its_caller_and_leaves_again(core: int) -> None:
    placement = Placement()

    def engine() -> None:
        placement.join_caller()
        assert os.sched_getaffinity(0) == {core}
        placement.leave()
        assert sorted(os.sched_getaffinity(0)) == CORES

    os.sched_setaffinity(0, {core})
    placement.note_caller()
    os.sched_setaffinity(0, CORES)
    in_thread(engine)


def test_without_a_caller_it_stays_where_it_is() -> None:
    placement = Placement()

    def engine() -> None:
        placement.join_caller()
        placement.leave()
        assert sorted(os.sched_getaffinity(0)) == CORES

    in_thread(engine)


def test_on_a_crowded_host_it_interrupts_others_only_while_a_caller_waits() -> None:
    placement = Placement(0, CROWD)

    def engine() -> None:
        for _ in range(2):
            placement.leave()
            assert os.sched_getscheduler(0) == os.SCHED_BATCH
            assert os.sched_getscheduler(os.getpid()) == os.SCHED_OTHER, "the training thread is as it was"
            placement.join_caller()
            assert os.sched_getscheduler(0) == os.SCHED_OTHER

    in_thread(engine)


def test_where_there_is_a_core_for_every_rank_its_policy_stays_the_default() -> None:
    placement = Placement(0, CROWD - 1)

    def engine() -> None:
        placement.leave()
        assert os.sched_getscheduler(0) == os.SCHED_OTHER

    in_thread(engine)


def test_a_policy_that_the_user_has_chosen_stays() -> None:
    placement = Placement(0, CROWD)

    def engine() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        for change in (placement.leave, placement.join_caller, placement.leave):
            change()
            assert os.sched_getscheduler(0) == os.SCHED_BATCH

    in_thread(engine)


@pytest.mark.parametrize("local_rank", range(5))
def test_more_ranks_than_cores_share_them_evenly(local_rank: int) -> None:
    placement = Placement(local_rank, len(CORES) + 5)

    def engine() -> None:
        for _ in range(2):
            placement.note_caller()
            placement.join_caller()
            assert os.sched_getaffinity(0) == {CORES[local_rank % len(CORES)]}
            placement.leave()
            assert sorted(os.sched_getaffinity(0)) == CORES

    in_thread(engine)


def test_it_keeps_to_the_cores_that_the_process_has_now() -> None:
    placement = Placement()
    placement.note_caller()
    taken = CORES[-1]

    def engine() -> None:
        placement.join_caller()
        placement.leave()
        assert os.sched_getaffinity(0) == {taken}

    os.sched_setaffinity(0, {taken})
    in_thread(engine)


def test_timers_are_sharpened_for_the_calling_thread_only() -> None:
    def slack() -> int:
        return int(ctypes.CDLL(None).prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0))

    def engine() -> None:
        sharpen_timers()
        assert slack() == 1000  # ns

    before = slack()
    in_thread(engine)
    assert slack() == before
