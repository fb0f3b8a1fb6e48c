"""Horovod's basic functions that need no other rank."""

from __future__ import annotations

import re

import pytest

from hvd_gossip import basics


def test_there_is_one_process_set() -> None:
    basics.require_global(basics.global_process_set)
    basics.require_global(basics.ProcessSet())
    assert basics.global_process_set.process_set_id == 0
    assert basics.global_process_set.included()
    assert repr(basics.global_process_set) == "ProcessSet(global)"
    with pytest.raises(NotImplementedError, match=r"\[0, 1\]"):
        basics.ProcessSet([0, 1])


def test_other_process_sets_are_refused_before_anything_starts() -> None:
    with pytest.raises(NotImplementedError, match="only the global process set"):
        basics.init(process_sets=[object()])  # type: ignore[list-item]
    with pytest.raises(NotImplementedError, match="'d'"):
        basics.init(process_sets="dynamic")
    assert not basics.is_initialized()


def test_names_are_told_apart_by_kind_and_numbered_without_one() -> None:
    assert basics.operation_name("allreduce", "x") == "allreduce.x"
    assert basics.operation_name("broadcast", "x") == "broadcast.x"
    first, second = (basics.operation_name("barrier", None) for _ in range(2))
    numbers = [int(found[1]) for name in (first, second) if (found := re.fullmatch(r"barrier\.noname\.(\d+)", name))]
    assert len(numbers) == 2
    assert numbers[1] == numbers[0] + 1


OF_RANKS = (
    basics.rank,
    basics.size,
    basics.local_rank,
    basics.local_size,
    basics.cross_rank,
    basics.cross_size,
    basics.is_homogeneous,
    basics.mpi_threads_supported,
    basics.global_process_set.rank,
)


@pytest.mark.parametrize("function", OF_RANKS)
def test_ranks_need_init(function: object) -> None:
    with pytest.raises(ValueError, match=r"use hvd\.init\(\)"):
        function()  # type: ignore[operator]
