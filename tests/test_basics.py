"""Horovod's basic functions that need no other rank."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from hvd_gossip import basics


def test_the_global_set_is_number_0_and_a_set_has_no_number_before_init() -> None:
    assert basics.process_set_id(basics.global_process_set) == 0
    assert str(basics.global_process_set) == "ProcessSet(process_set_id=0, ranks=[], mpi_comm=None)"
    some = basics.ProcessSet([2, 0])
    assert str(some) == "ProcessSet(process_set_id=None, ranks=[0, 2], mpi_comm=None)"
    assert (some.size(), some.rank()) == (None, None)
    with pytest.raises(ValueError, match="does not exist or has not been registered"):
        basics.process_set_id(some)
    assert basics.remove_process_set(some) is False
    assert basics.remove_process_set(basics.global_process_set) is False


@pytest.mark.parametrize("wrong", [3, [0, "1"], object(), "01"])
def test_a_set_is_made_of_ranks_or_a_communicator(wrong: object) -> None:
    with pytest.raises(ValueError, match="list of process ranks or an mpi4py Comm object"):
        basics.ProcessSet(wrong)


def test_wrong_process_sets_are_refused_before_anything_starts() -> None:
    for wrong in ([object()], [[0, 1]], "static"):
        with pytest.raises(ValueError, match="process_sets is a list of ProcessSet"):
            basics.init(process_sets=wrong)  # type: ignore[arg-type]
    assert not basics.is_initialized()


def test_names_are_told_apart_by_kind_and_numbered_without_one() -> None:
    assert basics.operation_name("allreduce", "x") == "allreduce.x"
    assert basics.operation_name("broadcast", "x") == "broadcast.x"
    first, second = (basics.operation_name("barrier", None) for _ in range(2))
    numbers = [int(found[1]) for name in (first, second) if (found := re.fullmatch(r"barrier\.noname\.(\d+)", name))]
    assert len(numbers) == 2
    assert numbers[1] == numbers[0] + 1
    basics.operation_name("barrier", None, process_set=7)  # other ranks do not see this one
    assert basics.operation_name("barrier", None) == f"barrier.noname.{numbers[1] + 1}"


def test_copies_of_a_process_set_are_the_set_itself() -> None:
    assert pickle.loads(pickle.dumps(basics.global_process_set)) is basics.global_process_set
    assert copy.deepcopy(basics.global_process_set) is basics.global_process_set
    unregistered = copy.deepcopy(basics.ProcessSet([2, 1]))
    assert (unregistered.ranks, unregistered.process_set_id) == ([1, 2], None)


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
    basics.global_process_set.size,
    basics.global_process_set.included,
    basics.ProcessSet([0]).included,
    lambda: basics.add_process_set([0]),
)


@pytest.mark.parametrize("function", OF_RANKS)
def test_ranks_need_init(function: object) -> None:
    with pytest.raises(ValueError, match=r"use hvd\.init\(\)"):
        function()  # type: ignore[operator]
