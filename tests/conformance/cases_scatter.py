"""Horovod, API, alltoall, reducescatter and grouped_reducescatter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.conformance.case import FLOATS, Array, Cases, close, everybodys, numbers, ours, parts, raises, same
from tests.conformance.framework import Framework

CASES = Cases()


@CASES.add()
def alltoall_without_splits_exchanges_equal_parts(f: Framework) -> None:
    """API, alltoall, splits: if not given, the first dimension is split equally; one tensor is returned."""
    n, rank = f.hvd.size(), f.hvd.rank()
    everybody = everybodys(f, 2 * n, 3)
    expected = np.concatenate([tensor[2 * rank : 2 * rank + 2] for tensor in everybody])
    same(f, f.hvd.alltoall(ours(f, 2 * n, 3)), expected)


def _splits(f: Framework) -> list[list[int]]:
    """How many rows each rank sends to each; some are zero, and they differ from rank to rank."""
    n = f.hvd.size()
    return [[(sender + 2 * receiver) % 3 for receiver in range(n)] for sender in range(n)]


def _received(f: Framework, tensors: list[Array]) -> Array:
    """What this rank receives under `_splits`."""
    mine = []
    for row, tensor in zip(_splits(f), tensors, strict=True):
        before = sum(row[: f.hvd.rank()])
        mine.append(tensor[before : before + row[f.hvd.rank()]])
    return np.concatenate(mine)


@CASES.add()
def alltoall_with_splits_returns_what_it_received_and_from_whom(f: Framework) -> None:
    """API, alltoall: with splits, the gathered tensor, and how many elements came from each worker."""
    n, rank, splits = f.hvd.size(), f.hvd.rank(), _splits(f)
    for dtype in f.moved:
        below = 2 if dtype == "bool" else 5
        everybody = [numbers(other, sum(splits[other]), 2, below=below) for other in range(n)]
        given = f.tensor(splits[rank], "int32")
        result, received = f.hvd.alltoall(f.tensor(everybody[rank], dtype), splits=given)
        same(f, result, _received(f, everybody), dtype)
        assert f.numpy(received).tolist() == [splits[sender][rank] for sender in range(n)]


@CASES.add()
def alltoall_takes_splits_as_a_list(f: Framework) -> None:
    """API, alltoall, splits: integers in rank order."""
    n = f.hvd.size()
    result, received = f.hvd.alltoall(ours(f, n), splits=[1] * n)
    same(f, result, everybodys(f, n)[:, f.hvd.rank()])
    assert f.numpy(received).tolist() == [1] * n


@CASES.add()
def alltoall_of_nothing_is_nothing(f: Framework) -> None:
    """API, alltoall: no rows at all, split into parts of none."""
    result, received = f.hvd.alltoall(f.tensor(np.zeros((0, 3))), splits=f.tensor([0] * f.hvd.size(), "int32"))
    same(f, result, np.zeros((0, 3)))
    assert f.numpy(received).tolist() == [0] * f.hvd.size()


@CASES.add()
def alltoall_of_one_dimension_and_of_strided_tensors(f: Framework) -> None:
    """API, alltoall: the slicing is done on the first dimension."""
    n, rank = f.hvd.size(), f.hvd.rank()
    same(f, f.hvd.alltoall(ours(f, n)), everybodys(f, n)[:, rank])
    result = f.hvd.alltoall(f.strided(numbers(rank, 2 * n, 3)))
    same(f, result, everybodys(f, 2 * n, 3)[:, 2 * rank : 2 * rank + 2].reshape(-1, 3))


@CASES.add()
def alltoall_refuses_splits_that_do_not_fit(f: Framework) -> None:
    """API, alltoall, splits: one number for each worker, of the rows that there are."""
    n = f.hvd.size()
    for splits in ([1] * (n + 1), [2] * n, [-1] * n):
        with raises(ValueError, *f.errors):
            f.hvd.alltoall(ours(f, n), splits=f.tensor(splits, "int32"))
    same(f, f.hvd.allreduce(ours(f, 3)), everybodys(f, 3).mean(0))


@CASES.add(ranks=2)
def alltoall_without_splits_refuses_rows_that_cannot_be_divided(f: Framework) -> None:
    """API, alltoall, splits: without, the first dimension is split equally."""
    with raises(ValueError, *f.errors):
        f.hvd.alltoall(ours(f, f.hvd.size() + 1))
    same(f, f.hvd.allreduce(ours(f, 3)), everybodys(f, 3).mean(0))


@CASES.add()
def alltoall_gradients_go_back(f: Framework) -> None:
    """API, alltoall: allows gradients to be computed and backpropagated."""
    n, rank, splits = f.hvd.size(), f.hvd.rank(), _splits(f)
    received = [sum(splits[sender][receiver] for sender in range(n)) for receiver in range(n)]
    upstream = [numbers(other, received[other], 2) + 10 * other for other in range(n)]
    (gradient,) = f.gradients(
        lambda tensors: [f.hvd.alltoall(tensors[0], splits=f.tensor(splits[rank], "int32"))[0]],
        [np.ones((sum(splits[rank]), 2))],
        [upstream[rank]],
    )
    mine = []
    for receiver in range(n):
        before = sum(splits[sender][receiver] for sender in range(rank))
        mine.append(upstream[receiver][before : before + splits[rank][receiver]])
    close(gradient, np.concatenate(mine))


@CASES.add()
def reducescatter_averages_by_default(f: Framework) -> None:
    """API, reducescatter, op: defaults to Average."""
    n = f.hvd.size()
    same(f, f.hvd.reducescatter(ours(f, 2 * n, 3)), everybodys(f, 2 * n, 3).mean(0)[parts(2 * n, n)[f.hvd.rank()]])


@CASES.add()
def reducescatter_sums_every_type(f: Framework) -> None:
    """API, reducescatter: a tensor of the same rank and type."""
    n = f.hvd.size()
    for dtype in f.reduced:
        result = f.hvd.reducescatter(ours(f, n, 2, dtype=dtype), op=f.hvd.Sum)
        same(f, result, everybodys(f, n, 2).sum(0)[[f.hvd.rank()]], dtype)


@CASES.add()
def reducescatter_of_uneven_rows(f: Framework) -> None:
    """API, reducescatter: the first dimension is divided across the processes; the first ones get one row more."""
    n = f.hvd.size()
    for rows in (n + 1, 2 * n - 1, 3 * n):
        result = f.hvd.reducescatter(ours(f, rows, 2), op=f.hvd.Sum)
        same(f, result, everybodys(f, rows, 2).sum(0)[parts(rows, n)[f.hvd.rank()]])


@CASES.add()
def reducescatter_of_fewer_rows_than_ranks(f: Framework) -> None:
    """API, reducescatter: there may be none left for the last processes."""
    n = f.hvd.size()
    for rows in (0, 1):
        result = f.hvd.reducescatter(ours(f, rows, 2), op=f.hvd.Sum)
        same(f, result, everybodys(f, rows, 2).sum(0)[parts(rows, n)[f.hvd.rank()]])


@CASES.add()
def reducescatter_sums_and_averages_only(f: Framework) -> None:
    """Horovod refuses other operations than Sum and Average for reducescatter."""
    for op in (f.hvd.Min, f.hvd.Max, f.hvd.Product, f.hvd.Adasum):
        with raises(ValueError, NotImplementedError, *f.errors):
            f.hvd.reducescatter(ours(f, f.hvd.size()), op=op)


@CASES.add()
def reducescatter_scales_and_compresses(f: Framework) -> None:
    """API, reducescatter, prescale_factor, postscale_factor, compression."""
    n = f.hvd.size()
    expected = everybodys(f, n).sum(0)[[f.hvd.rank()]] * 1.5
    for dtype in FLOATS:
        options = {"op": f.hvd.Sum, "prescale_factor": 0.5, "postscale_factor": 3.0}
        same(f, f.hvd.reducescatter(ours(f, n, dtype=dtype), **options), expected, dtype)
    options["compression"] = f.hvd.Compression.fp16
    same(f, f.hvd.reducescatter(ours(f, n), **options), expected)


def _first(operation: Callable[[Any], Any], tensors: list[Any]) -> list[Any]:
    return [operation(tensors[0])]


@CASES.add()
def reducescatter_gradient_joins_everybodys(f: Framework) -> None:
    """API, reducescatter: gradients are backpropagated; for Sum times the number of processes."""
    n, rank = f.hvd.size(), f.hvd.rank()
    rows = parts(n + 1, n)
    upstream = [numbers(other, rows[other].stop - rows[other].start) + 10 * other for other in range(n)]
    for op, factor in ((f.hvd.Average, 1), (f.hvd.Sum, n)):
        scatter = functools.partial(_first, functools.partial(f.hvd.reducescatter, op=op))
        (gradient,) = f.gradients(scatter, [np.ones(n + 1)], [upstream[rank]])
        close(gradient, np.concatenate(upstream) * factor)


@CASES.add()
def grouped_reducescatter_reduces_tensor_by_tensor(f: Framework) -> None:
    """API, grouped_reducescatter: each tensor of a list, in the same positions."""
    n, rank = f.hvd.size(), f.hvd.rank()
    first, second = f.hvd.grouped_reducescatter([ours(f, n + 1, 2), ours(f, 2 * n)], op=f.hvd.Sum)
    same(f, first, everybodys(f, n + 1, 2).sum(0)[parts(n + 1, n)[rank]])
    same(f, second, everybodys(f, 2 * n).sum(0)[parts(2 * n, n)[rank]])


@CASES.add()
def grouped_reducescatter_gradient(f: Framework) -> None:
    """API, grouped_reducescatter: allows gradients to be computed and backpropagated."""
    n, rank = f.hvd.size(), f.hvd.rank()
    upstream = everybodys(f, 1) + 1
    gradients = f.gradients(
        lambda tensors: list(f.hvd.grouped_reducescatter(tensors)), [np.ones(n), np.ones(n)], [upstream[rank]] * 2
    )
    close(gradients[0], np.concatenate(upstream))
    close(gradients[1], np.concatenate(upstream))
