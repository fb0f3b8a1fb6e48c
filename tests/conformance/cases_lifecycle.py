"""Horovod, API, init and shutdown; "Process Sets", static sets; settings that are read at init. They initialize anew."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.conformance.case import Cases, everybodys, ours, raises, same
from tests.conformance.cases_mixture import run_mixture
from tests.conformance.framework import Framework, Operation

CASES = Cases()


@contextmanager
def _anew(f: Framework, *args: Any, environment: dict[str, str] | None = None, **kwargs: Any) -> Iterator[None]:
    """Initialized with these arguments and variables, and afterwards as before."""
    before = dict(os.environ)
    f.hvd.shutdown()
    os.environ.update(environment or {})
    try:
        f.hvd.init(*args, **kwargs)
        yield
        f.hvd.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)
    f.hvd.init(process_sets="dynamic")


@CASES.add()
def after_shutdown_nothing_is_initialized(f: Framework) -> None:
    """API, shutdown, is_initialized; rank, size and operations raise ValueError before init()."""
    f.hvd.shutdown()
    assert f.hvd.is_initialized() is False
    for function in ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size", "is_homogeneous"):
        with raises(ValueError, about=["init"]):
            getattr(f.hvd, function)()
    with raises(ValueError, *f.errors):
        f.hvd.allreduce(f.tensor([1.0]))
    with raises(ValueError, about=["init"]):
        f.optimizer(f.variables([np.ones(2)]), 0.1)
    f.hvd.shutdown()
    f.hvd.init(process_sets="dynamic")
    assert f.hvd.is_initialized() is True
    same(f, f.hvd.allreduce(ours(f, 3)), everybodys(f, 3).mean(0))


@CASES.add()
def a_job_may_shut_down_and_initialize_several_times(f: Framework) -> None:
    """API, init, shutdown: each init() begins anew; so do the names of operations."""
    for step in range(3):
        f.hvd.shutdown()
        f.hvd.init(process_sets="dynamic")
        same(f, f.hvd.allreduce(ours(f, 3 + step), name="again", op=f.hvd.Sum), everybodys(f, 3 + step).sum(0))
        same(f, f.hvd.allgather(ours(f, 3)), everybodys(f, 3).reshape(-1))


@CASES.add(ranks=2)
def an_operation_that_a_rank_can_no_longer_take_part_in_fails(f: Framework) -> None:
    """Horovod fails what is submitted after one of the ranks has shut down; nobody waits for it."""
    last = f.hvd.size() - 1
    if f.hvd.rank() != last:
        with raises(*f.errors):
            f.hvd.allreduce(ours(f, 3), name="without the last rank")
    f.hvd.shutdown()
    f.hvd.init(process_sets="dynamic")
    same(f, f.hvd.allreduce(ours(f, 3)), everybodys(f, 3).mean(0))


@CASES.add(ranks=2)
def static_process_sets_are_given_to_init(f: Framework) -> None:
    """Process sets, "Static process sets": numbered 1, 2..., printed with their ranks, used on the ranks in them."""
    n, rank = f.hvd.size(), f.hvd.rank()
    members = [list(range(0, n, 2)), list(range(1, n, 2))]
    even, odd = f.hvd.ProcessSet(members[0]), f.hvd.ProcessSet(members[1])
    with _anew(f, process_sets=[even, odd]):
        assert [str(p) for p in (f.hvd.global_process_set, even, odd)] == [
            f"ProcessSet(process_set_id=0, ranks={list(range(n))}, mpi_comm=None)",
            f"ProcessSet(process_set_id=1, ranks={members[0]}, mpi_comm=None)",
            f"ProcessSet(process_set_id=2, ranks={members[1]}, mpi_comm=None)",
        ]
        result = f.hvd.allreduce(ours(f, 3), process_set=(even, odd)[rank % 2])
        same(f, result, everybodys(f, 3)[members[rank % 2]].mean(0))


@CASES.add(ranks=3)
def static_process_sets_cannot_be_changed(f: Framework) -> None:
    """Process sets: the configuration cannot be changed without restarting; adding needs dynamic sets."""
    some = f.hvd.ProcessSet([0, 1])
    with _anew(f, process_sets=[some]):
        with raises(ValueError, about=["dynamic"]):
            f.hvd.add_process_set([1, 2])
        with raises(ValueError, about=["dynamic"]):
            f.hvd.remove_process_set(some)
        assert f.hvd.remove_process_set(f.hvd.global_process_set) is False


@CASES.add(ranks=2)
def process_sets_are_made_of_mpi_communicators(f: Framework) -> None:
    """Process sets, "Static process sets from MPI communicators": a set that differs by rank."""
    from mpi4py import MPI

    rank, world = f.hvd.rank(), MPI.COMM_WORLD
    part = world.Split(color=rank % 2, key=rank)
    mine = f.hvd.ProcessSet(part)
    with _anew(f, world, process_sets=[mine]):
        members = list(range(rank % 2, f.hvd.size(), 2))
        assert mine.ranks == members
        assert mine.process_set_id == 1 + rank % 2
        same(f, f.hvd.allreduce(ours(f, 3), process_set=mine), everybodys(f, 3)[members].mean(0))
    part.Free()


@CASES.add(ranks=3)
def the_environment_makes_process_sets_dynamic(f: Framework) -> None:
    """Process sets, "Dynamic process sets": alternatively set HOROVOD_DYNAMIC_PROCESS_SETS=1."""
    with _anew(f, environment={"HOROVOD_DYNAMIC_PROCESS_SETS": "1"}):
        some = f.hvd.add_process_set([0, 2])
        assert some.process_set_id == 1
        assert f.hvd.remove_process_set(some) is True


def _many(f: Framework) -> None:
    """Three steps of reductions by name."""
    for step in range(3):
        operations: list[Operation] = [
            ("allreduce", (ours(f, 2 + i),), {"name": f"tensor {i}", "op": f.hvd.Sum}) for i in range(20)
        ]
        for i, result in enumerate(f.together(operations)):
            same(f, result, everybodys(f, 2 + i).sum(0))
        same(f, f.hvd.allreduce(f.tensor([float(step)]), name="step"), [step])


@CASES.add()
def fusion_can_be_turned_off(f: Framework) -> None:
    """Tensor fusion: HOROVOD_FUSION_THRESHOLD=0 disables it; results are the same."""
    with _anew(f, environment={"HOROVOD_FUSION_THRESHOLD": "0"}):
        _many(f)


@CASES.add()
def fusion_works_with_a_small_threshold(f: Framework) -> None:
    """Tensor fusion: HOROVOD_FUSION_THRESHOLD, of a few tensors' bytes."""
    with _anew(f, environment={"HOROVOD_FUSION_THRESHOLD": "100"}):
        _many(f)


@CASES.add()
def the_cycle_time_can_be_set(f: Framework) -> None:
    """Tensor fusion: HOROVOD_CYCLE_TIME, in milliseconds (asked for in horovod#276)."""
    with _anew(f, environment={"HOROVOD_CYCLE_TIME": "3.5"}):
        _many(f)


@CASES.add()
def the_response_cache_can_be_turned_off(f: Framework) -> None:
    """HOROVOD_CACHE_CAPACITY=0: every step is negotiated; results are the same."""
    with _anew(f, environment={"HOROVOD_CACHE_CAPACITY": "0"}):
        _many(f)


@CASES.add()
def the_response_cache_may_be_smaller_than_what_is_repeated(f: Framework) -> None:
    """HOROVOD_CACHE_CAPACITY: the number of responses kept; others are negotiated again."""
    with _anew(f, environment={"HOROVOD_CACHE_CAPACITY": "3", "HOROVOD_FUSION_THRESHOLD": "200"}):
        _many(f)
        run_mixture(f, [f.hvd.global_process_set], seed=20)


@CASES.add()
def the_environment_starts_a_timeline(f: Framework) -> None:
    """Timeline: HOROVOD_TIMELINE names the file to be created, on rank 0; HOROVOD_TIMELINE_MARK_CYCLES=1 adds cycles."""
    with tempfile.TemporaryDirectory() as mine:
        path = Path(f.hvd.broadcast_object(mine), "timeline.json")
        with _anew(f, environment={"HOROVOD_TIMELINE": str(path), "HOROVOD_TIMELINE_MARK_CYCLES": "1"}):
            f.hvd.allreduce(ours(f, 3), name="watched")
        text = path.read_text()
        json.loads(text)
        assert all(word in text for word in ("NEGOTIATE_ALLREDUCE", "watched", "CYCLE"))
        f.hvd.barrier()


@CASES.add(ranks=2)
def init_takes_some_of_the_ranks(f: Framework) -> None:
    """API, init, comm: ranks of MPI.COMM_WORLD that take part, or an MPI communicator; it is cloned."""
    from mpi4py import MPI

    rank = f.hvd.rank()
    part = MPI.COMM_WORLD.Split(color=rank % 2, key=rank)
    members = list(range(rank % 2, f.hvd.size(), 2))
    with _anew(f, part):
        assert f.hvd.size() == len(members)
        assert members[f.hvd.rank()] == rank
        same(f, f.hvd.allreduce(f.tensor([float(rank)]), op=f.hvd.Sum), [sum(members)])
    part.Free()


@CASES.add(ranks=2)
def init_takes_a_list_of_ranks(f: Framework) -> None:
    """API, init, comm: a list specifying ranks for the communicator, relative to MPI_COMM_WORLD."""
    rank = f.hvd.rank()
    members = list(range(rank % 2, f.hvd.size(), 2))
    with _anew(f, members):
        assert f.hvd.size() == len(members)
        assert members[f.hvd.rank()] == rank
        same(f, f.hvd.allreduce(f.tensor([float(rank)]), op=f.hvd.Sum), [sum(members)])
