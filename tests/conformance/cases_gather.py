"""Horovod, API, allgather, grouped_allgather and broadcast."""

from __future__ import annotations

import numpy as np

from tests.conformance.case import Array, Cases, close, everybodys, numbers, ours, same
from tests.conformance.framework import Framework

CASES = Cases()


def _rows(rank: int, add: int = 1) -> int:
    """Another number of rows on every rank."""
    return (2 * rank) % 3 + add


def _uneven(f: Framework, columns: int = 2, add: int = 1) -> list[Array]:
    """Every rank's rows."""
    return [numbers(rank, _rows(rank, add), columns) for rank in range(f.hvd.size())]


@CASES.add()
def allgather_joins_in_the_order_of_ranks(f: Framework) -> None:
    """API, allgather: concatenated on dimension zero."""
    same(f, f.hvd.allgather(ours(f, 2, 3)), everybodys(f, 2, 3).reshape(-1, 3))


@CASES.add()
def allgather_of_every_type(f: Framework) -> None:
    """API, allgather: a tensor of the same type."""
    for dtype in f.moved:
        below = 2 if dtype == "bool" else 5
        expected = everybodys(f, 2, 3, below=below).reshape(-1, 3)
        same(f, f.hvd.allgather(ours(f, 2, 3, dtype=dtype, below=below)), expected, dtype)


@CASES.add()
def allgather_of_uneven_first_dimensions(f: Framework) -> None:
    """API, allgather: the first dimension is allowed to be different; the result's is the sum."""
    everybody = _uneven(f)
    same(f, f.hvd.allgather(f.tensor(everybody[f.hvd.rank()])), np.concatenate(everybody))


@CASES.add()
def allgather_where_some_have_no_rows(f: Framework) -> None:
    """API, allgather: a first dimension may be zero, on some ranks or on all."""
    everybody = _uneven(f, add=0)
    same(f, f.hvd.allgather(f.tensor(everybody[f.hvd.rank()])), np.concatenate(everybody))
    same(f, f.hvd.allgather(f.tensor(np.zeros((0, 2)))), np.zeros((0, 2)))


@CASES.add()
def allgather_of_a_name_may_change_its_rows_between_steps(f: Framework) -> None:
    """API, allgather: keyed by its name; the first dimension is free at each step."""
    for add in (1, 3, 2, 2):
        everybody = _uneven(f, add=add)
        same(f, f.hvd.allgather(f.tensor(everybody[f.hvd.rank()]), name="rows"), np.concatenate(everybody))


@CASES.add()
def allgather_of_a_strided_tensor(f: Framework) -> None:
    """API, allgather: what counts is the tensor, not how it lies in memory."""
    same(f, f.hvd.allgather(f.strided(numbers(f.hvd.rank(), 3, 4))), everybodys(f, 3, 4).reshape(-1, 4))


@CASES.add()
def allgather_gradient_is_the_average_of_its_part(f: Framework) -> None:
    """API, allgather: gradients are backpropagated; averaged over the ranks."""
    n, rank = f.hvd.size(), f.hvd.rank()
    rows = [_rows(other) for other in range(n)]
    upstream = np.stack([numbers(other, sum(rows), 2) + other for other in range(n)])
    (gradient,) = f.gradients(
        lambda tensors: [f.hvd.allgather(tensors[0])], [np.ones((rows[rank], 2))], [upstream[rank]]
    )
    close(gradient, upstream.mean(0)[sum(rows[:rank]) :][: rows[rank]])


@CASES.add()
def grouped_allgather_gathers_tensor_by_tensor(f: Framework) -> None:
    """API, grouped_allgather: concatenates each of a list of tensors."""
    everybody = _uneven(f)
    first, second = f.hvd.grouped_allgather([f.tensor(everybody[f.hvd.rank()]), ours(f, 2, 3, dtype="float32")])
    same(f, first, np.concatenate(everybody))
    same(f, second, everybodys(f, 2, 3).reshape(-1, 3))


@CASES.add()
def grouped_allgather_gradient(f: Framework) -> None:
    """API, grouped_allgather: allows gradients to be computed and backpropagated."""
    n, rank = f.hvd.size(), f.hvd.rank()
    upstream = [np.stack([numbers(other, n * rows) + other for other in range(n)]) for rows in (2, 3)]
    gradients = f.gradients(
        lambda tensors: list(f.hvd.grouped_allgather(tensors)),
        [np.ones(2), np.ones(3)],
        [both[rank] for both in upstream],
    )
    close(gradients[0], upstream[0].mean(0)[2 * rank :][:2])
    close(gradients[1], upstream[1].mean(0)[3 * rank :][:3])


@CASES.add()
def broadcast_gives_the_roots_values(f: Framework) -> None:
    """Concepts: broadcasts data from one process, identified by root rank, onto every other process."""
    for root in range(f.hvd.size()):
        same(f, f.hvd.broadcast(ours(f, 3, 2), root), numbers(root, 3, 2))


@CASES.add()
def broadcast_of_every_type(f: Framework) -> None:
    """API, broadcast: a tensor of the same shape and type."""
    root = f.hvd.size() - 1
    for dtype in f.moved:
        below = 2 if dtype == "bool" else 5
        same(f, f.hvd.broadcast(ours(f, 5, dtype=dtype, below=below), root), numbers(root, 5, below=below), dtype)


@CASES.add()
def broadcast_does_not_change_its_input(f: Framework) -> None:
    """API, broadcast: the input tensor is not modified."""
    mine = ours(f, 5)
    f.hvd.broadcast(mine, 0)
    same(f, mine, numbers(f.hvd.rank(), 5))


@CASES.add()
def broadcast_of_scalars_empty_and_strided_tensors(f: Framework) -> None:
    """API, broadcast: a tensor of the same shape, whatever it is."""
    rank, root = f.hvd.rank(), f.hvd.size() - 1
    same(f, f.hvd.broadcast(f.tensor(float(rank)), root), float(root))
    same(f, f.hvd.broadcast(f.tensor(np.zeros((0, 3))), root), np.zeros((0, 3)))
    same(f, f.hvd.broadcast(f.strided(numbers(rank, 3, 4)), root), numbers(root, 3, 4))


@CASES.add()
def broadcast_gradient_is_the_roots(f: Framework) -> None:
    """API, broadcast: gradients are backpropagated: the average to the root, none to others."""
    n, rank, root = f.hvd.size(), f.hvd.rank(), f.hvd.size() - 1
    upstream = np.stack([numbers(other, 4) + other for other in range(n)])
    (gradient,) = f.gradients(lambda tensors: [f.hvd.broadcast(tensors[0], root)], [np.ones(4)], [upstream[rank]])
    close(gradient, upstream.mean(0) if rank == root else np.zeros(4))
