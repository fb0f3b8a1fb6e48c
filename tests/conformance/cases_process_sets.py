"""Horovod, "Process Sets: Concurrently Running Collective Operations", dynamic sets. The job allows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.conformance.case import Cases, close, everybodys, numbers, ours, parts, raises, same
from tests.conformance.framework import Framework

CASES = Cases()


@contextmanager
def _sets(f: Framework, *ranks: Sequence[int]) -> Iterator[list[Any]]:
    """Registered for a while."""
    made = [f.hvd.add_process_set(list(some)) for some in ranks]
    yield made
    for one in made:
        assert f.hvd.remove_process_set(one) is True


@contextmanager
def _even_and_odd(f: Framework) -> Iterator[tuple[Any, list[int]]]:
    """The set of this rank's parity, and its ranks."""
    n, parity = f.hvd.size(), f.hvd.rank() % 2
    with _sets(f, range(0, n, 2), range(1, n, 2)) as both:
        yield both[parity], list(range(parity, n, 2))


@CASES.add()
def the_global_process_set_is_number_0_and_has_all_ranks(f: Framework) -> None:
    """Process sets: global_process_set, process_set_id=0."""
    everybody = f.hvd.global_process_set
    assert everybody.process_set_id == 0
    assert everybody.ranks == list(range(f.hvd.size()))
    assert everybody.size() == f.hvd.size()
    assert everybody.rank() == f.hvd.rank()
    assert everybody.included() is True
    same(f, f.hvd.allreduce(ours(f, 3), process_set=everybody), everybodys(f, 3).mean(0))


@CASES.add()
def a_process_set_prints_its_number_and_ranks(f: Framework) -> None:
    """Process sets: what print(p) shows."""
    ranks = list(range(f.hvd.size()))
    assert str(f.hvd.global_process_set) == f"ProcessSet(process_set_id=0, ranks={ranks}, mpi_comm=None)"


@CASES.add()
def a_process_set_that_is_not_registered_has_no_size_and_no_rank(f: Framework) -> None:
    """API, ProcessSet.size, rank: None if not initialized."""
    loose = f.hvd.ProcessSet([0])
    assert loose.process_set_id is None
    assert loose.size() is None
    assert loose.rank() is None


@CASES.add()
def a_process_set_of_anything_else_is_refused(f: Framework) -> None:
    """API, ProcessSet: initialized with a list of process ranks or an MPI communicator."""
    for wrong in (["0"], [0.5], 3, None):
        with raises(ValueError):
            f.hvd.ProcessSet(wrong)


@CASES.add(ranks=2)
def added_sets_know_their_size_rank_and_members(f: Framework) -> None:
    """API, ProcessSet.size, rank, included; Process sets: numbers count up from 1."""
    n, rank = f.hvd.size(), f.hvd.rank()
    with _sets(f, range(0, n, 2), range(1, n, 2)) as both:
        for parity, one in enumerate(both):
            members = list(range(parity, n, 2))
            assert one.ranks == members
            assert one.size() == len(members)
            assert one.included() is (rank in members)
            assert one.process_set_id > 0
            if one.included():
                assert one.rank() == members.index(rank)
        assert both[0].process_set_id != both[1].process_set_id


@CASES.add(ranks=3)
def add_process_set_returns_the_set_that_it_was_given(f: Framework) -> None:
    """API, add_process_set: takes a ProcessSet or ranks, and returns it, fully initialized."""
    given = f.hvd.ProcessSet([1, 0])
    assert f.hvd.add_process_set(given) is given
    assert given.ranks == [0, 1]
    assert given.size() == 2
    assert f.hvd.remove_process_set(given) is True


@CASES.add(ranks=3)
def a_set_that_exists_already_is_refused(f: Framework) -> None:
    """API, add_process_set: no process set containing the same ranks may exist already."""
    with _sets(f, [0, 1]), raises(ValueError):
        f.hvd.add_process_set([1, 0])
    with raises(ValueError):
        f.hvd.add_process_set(list(range(f.hvd.size())))


@CASES.add(ranks=2)
def a_set_of_ranks_that_are_not_there_is_refused(f: Framework) -> None:
    """API, add_process_set: of Horovod processes."""
    with raises(ValueError, *f.errors):
        f.hvd.add_process_set([0, f.hvd.size()])
    same(f, f.hvd.allreduce(ours(f, 3)), everybodys(f, 3).mean(0))


@CASES.add(ranks=3)
def a_removed_set_is_no_set(f: Framework) -> None:
    """API, remove_process_set: returns whether the attempt is successful, and invalidates the object."""
    some = f.hvd.add_process_set([0, 1])
    assert f.hvd.remove_process_set(some) is True
    assert some.process_set_id is None
    assert some.size() is None
    assert f.hvd.remove_process_set(some) is False
    with raises(ValueError, *f.errors):
        f.hvd.allreduce(ours(f, 3), process_set=some)
    again = f.hvd.add_process_set([0, 1])
    assert f.hvd.remove_process_set(again) is True


@CASES.add()
def the_global_process_set_is_not_removed(f: Framework) -> None:
    """API, remove_process_set: False for the global process set."""
    assert f.hvd.remove_process_set(f.hvd.global_process_set) is False
    assert f.hvd.global_process_set.process_set_id == 0


@CASES.add(ranks=3)
def an_operation_of_a_set_that_this_rank_is_not_in_is_refused(f: Framework) -> None:
    """Process sets: run by the ranks of the set; others raise, and the set's operation is not disturbed."""
    with _sets(f, [0, 1]) as (some,):
        if f.hvd.rank() < 2:
            same(f, f.hvd.allreduce(ours(f, 3), process_set=some), everybodys(f, 3)[:2].mean(0))
        else:
            with raises(ValueError, *f.errors):
                f.hvd.allreduce(ours(f, 3), process_set=some)


@CASES.add(ranks=2)
def allreduce_within_a_set(f: Framework) -> None:
    """Process sets: even and odd ranks reduce at the same time, under the same name; Average divides by the set's size."""
    with _even_and_odd(f) as (mine, members):
        everybody = everybodys(f, 4)[members]
        for dtype in f.reduced:
            tensor = ours(f, 4, dtype=dtype)
            same(f, f.hvd.allreduce(tensor, name="x", op=f.hvd.Sum, process_set=mine), everybody.sum(0), dtype)
        same(f, f.hvd.allreduce(ours(f, 4), name="x", process_set=mine), everybody.mean(0))
        same(f, f.hvd.allreduce(ours(f, 4), name="x", op=f.hvd.Max, process_set=mine), everybody.max(0))


@CASES.add(ranks=2)
def grouped_allreduce_within_a_set(f: Framework) -> None:
    """API, grouped_allreduce, process_set."""
    with _even_and_odd(f) as (mine, members):
        first, second = f.hvd.grouped_allreduce([ours(f, 4), ours(f, 2, 2)], process_set=mine)
        same(f, first, everybodys(f, 4)[members].mean(0))
        same(f, second, everybodys(f, 2, 2)[members].mean(0))


@CASES.add(ranks=2)
def allgather_within_a_set(f: Framework) -> None:
    """API, allgather, grouped_allgather, process_set: in the order of the set's ranks."""
    with _even_and_odd(f) as (mine, members):
        everybody = [numbers(rank, rank + 1, 2) for rank in members]
        tensor = f.tensor(everybody[mine.rank()])
        same(f, f.hvd.allgather(tensor, process_set=mine), np.concatenate(everybody))
        same(f, f.hvd.grouped_allgather([tensor], process_set=mine)[0], np.concatenate(everybody))


@CASES.add(ranks=2)
def broadcast_within_a_set_names_the_root_by_its_global_rank(f: Framework) -> None:
    """API, ProcessSet.rank: operations like broadcast() are parameterized by the global rank."""
    with _even_and_odd(f) as (mine, members):
        root = members[-1]
        same(f, f.hvd.broadcast(ours(f, 4), root, process_set=mine), numbers(root, 4))
        assert f.hvd.broadcast_object(f"of {f.hvd.rank()}", root, process_set=mine) == f"of {root}"


@CASES.add(ranks=3)
def broadcast_from_a_root_outside_of_the_set_is_refused(f: Framework) -> None:
    """API, broadcast, root_rank: the rank to broadcast the value from."""
    with _sets(f, [0, 1]) as (some,):
        if f.hvd.rank() < 2:
            with raises(ValueError, *f.errors):
                f.hvd.broadcast(ours(f, 4), 2, process_set=some)
            same(f, f.hvd.broadcast(ours(f, 4), 1, process_set=some), numbers(1, 4))


@CASES.add(ranks=2)
def alltoall_within_a_set(f: Framework) -> None:
    """API, alltoall, process_set: one split for each of its ranks."""
    with _even_and_odd(f) as (mine, members):
        k, position = len(members), mine.rank()
        result = f.hvd.alltoall(ours(f, k, 3), process_set=mine)
        same(f, result, everybodys(f, k, 3)[members][:, position])
        splits = f.tensor([1] * k, "int32")
        result, received = f.hvd.alltoall(ours(f, k, 3), splits=splits, process_set=mine)
        same(f, result, everybodys(f, k, 3)[members][:, position])
        assert f.numpy(received).tolist() == [1] * k


@CASES.add(ranks=2)
def reducescatter_within_a_set(f: Framework) -> None:
    """API, reducescatter, grouped_reducescatter, process_set."""
    with _even_and_odd(f) as (mine, members):
        k = len(members)
        expected = everybodys(f, k + 1, 2)[members].sum(0)[parts(k + 1, k)[mine.rank()]]
        tensor = ours(f, k + 1, 2)
        same(f, f.hvd.reducescatter(tensor, op=f.hvd.Sum, process_set=mine), expected)
        same(f, f.hvd.grouped_reducescatter([tensor], op=f.hvd.Sum, process_set=mine)[0], expected)


@CASES.add(ranks=2)
def barrier_and_objects_within_a_set(f: Framework) -> None:
    """API, barrier, allgather_object, process_set: the ranks of the set, and no others."""
    with _even_and_odd(f) as (mine, members):
        f.hvd.barrier(process_set=mine)
        assert f.hvd.allgather_object(f.hvd.rank(), process_set=mine) == members


@CASES.add(ranks=2)
def gradients_stay_within_a_set(f: Framework) -> None:
    """API, allreduce, allgather, process_set: so do the gradients that are backpropagated."""
    with _even_and_odd(f) as (mine, members):
        k, rank = len(members), f.hvd.rank()
        upstream = everybodys(f, 4) + 1
        (gradient,) = f.gradients(
            lambda tensors: [f.hvd.allreduce(tensors[0], op=f.hvd.Sum, process_set=mine)],
            [np.ones(4)],
            [upstream[rank]],
        )
        close(gradient, upstream[members].sum(0))
        upstream = everybodys(f, 2 * k) + 1
        (gradient,) = f.gradients(
            lambda tensors: [f.hvd.allgather(tensors[0], process_set=mine)], [np.ones(2)], [upstream[rank]]
        )
        close(gradient, upstream[members].mean(0)[2 * mine.rank() :][:2])


@CASES.add(ranks=3)
def a_rank_may_be_in_several_sets(f: Framework) -> None:
    """Process sets: multiple subsets of the world of Horovod processes."""
    n = f.hvd.size()
    with _sets(f, range(n - 1), range(1, n), [n - 1]) as sets:
        for some in sets:
            if some.included():
                same(
                    f, f.hvd.allreduce(ours(f, 3), op=f.hvd.Sum, process_set=some), everybodys(f, 3)[some.ranks].sum(0)
                )
        same(f, f.hvd.allreduce(ours(f, 3)), everybodys(f, 3).mean(0))


@CASES.add(ranks=2)
def sets_do_not_wait_for_each_other(f: Framework) -> None:
    """Process sets: run distinct collective operations in parallel; another number of them in each set."""
    with _even_and_odd(f) as (mine, members):
        for step in range(1 + 3 * (f.hvd.rank() % 2)):
            result = f.hvd.allreduce(f.tensor([float(step)]), name=f"step {step}", op=f.hvd.Sum, process_set=mine)
            same(f, result, [step * len(members)])
