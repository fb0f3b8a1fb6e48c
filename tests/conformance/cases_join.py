"""Horovod, API, join: for uneven data."""

from __future__ import annotations

import numpy as np

from tests.conformance.case import Cases, everybodys, ours, raises, same
from tests.conformance.framework import Framework

CASES = Cases()


@CASES.add()
def join_returns_when_all_have_joined_and_names_the_last(f: Framework) -> None:
    """API, join: blocks until all ranks join; returns the id of the rank that joined last."""
    last = int(f.hvd.join())
    assert 0 <= last < f.hvd.size()
    assert f.hvd.allgather_object(last) == [last] * f.hvd.size()


@CASES.add()
def ranks_with_more_data_go_on_and_those_that_joined_add_zeros(f: Framework) -> None:
    """API, join: ranks that did not join continue to process allreduces; the others' tensors are zeros."""
    n, rank = f.hvd.size(), f.hvd.rank()
    for step in range(rank + 1):
        active = np.arange(n) >= step
        total = f.hvd.allreduce(ours(f, 4), name="sum", op=f.hvd.Sum)
        same(f, total, everybodys(f, 4)[active].sum(0))
        mean = f.hvd.allreduce(ours(f, 4), name="mean")
        same(f, mean, everybodys(f, 4)[active].sum(0) / n)
    assert int(f.hvd.join()) == n - 1


@CASES.add()
def ranks_join_with_grouped_reductions_and_other_types_under_way(f: Framework) -> None:
    """API, join: temporary zero tensors, for whatever is reduced."""
    n, rank = f.hvd.size(), f.hvd.rank()
    for step in range(rank + 1):
        active = np.arange(n) >= step
        for dtype in ("float64", "int32", "float16"):
            tensors = [ours(f, 3, dtype=dtype), ours(f, 2, 2, dtype=dtype)]
            first, second = f.hvd.grouped_allreduce(tensors, name=dtype, op=f.hvd.Sum)
            same(f, first, everybodys(f, 3)[active].sum(0), dtype)
            same(f, second, everybodys(f, 2, 2)[active].sum(0), dtype)
    assert int(f.hvd.join()) == n - 1


@CASES.add(ranks=2)
def what_join_does_not_support_fails_while_ranks_are_joined(f: Framework) -> None:
    """API, join: allreduce only. An allgather or a broadcast fails while a rank has joined; afterwards they work."""
    last = f.hvd.size() - 1
    if f.hvd.rank() == last:
        f.hvd.allreduce(ours(f, 2), name="all others have joined", op=f.hvd.Sum)
        with raises(*f.errors, about=["join"]):
            f.hvd.allgather(ours(f, 2), name="gathered")
        with raises(*f.errors, about=["join"]):
            f.hvd.broadcast(ours(f, 2), last, name="sent")
    assert int(f.hvd.join()) == last
    same(f, f.hvd.allgather(ours(f, 2)), everybodys(f, 2).reshape(-1))


@CASES.add()
def join_may_be_called_every_epoch(f: Framework) -> None:
    """API, join: after it, all ranks take part again."""
    for epoch in range(3):
        for _ in range((f.hvd.rank() + epoch) % 2):
            f.hvd.allreduce(ours(f, 2), name="uneven")
        f.hvd.join()
        same(f, f.hvd.allreduce(ours(f, 3), name="even"), everybodys(f, 3).mean(0))
