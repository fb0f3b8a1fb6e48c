"""Checks of alltoall and reducescatter; run by test_scatter_ops.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch

from tests.torch_frontend.ranks import run_checks
from tests.torch_frontend.tensors import FLOATS, INTEGERS, everybodys, ours, rows_of, same


def splits_of(rank: int) -> list[int]:
    """How many rows a rank sends to each: rank + destination, so that rank 0 sends itself none."""
    return [rank + other for other in range(hvd.size())]


def parts_of(rank: int, *shape: int, dtype: torch.dtype = torch.float32) -> Sequence[torch.Tensor]:
    """What a rank sends to each."""
    return torch.split(ours(sum(splits_of(rank)), *shape, dtype=dtype, rank=rank), splits_of(rank))


def received(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What this rank gets, if all send by `splits_of`."""
    return torch.cat([parts_of(rank, *shape, dtype=dtype)[hvd.rank()] for rank in range(hvd.size())])


def check_alltoall_in_equal_slices() -> None:
    n, me = hvd.size(), hvd.rank()
    expected = torch.cat([ours(2 * n, 3, rank=rank)[2 * me : 2 * me + 2] for rank in range(n)])
    mine = ours(2 * n, 3)
    same(hvd.alltoall(mine), expected)
    same(mine, ours(2 * n, 3))
    output, sizes = hvd.synchronize(hvd.alltoall_async(mine, name="equal"))
    same(output, expected)
    same(sizes, torch.full((n,), 2, dtype=torch.int32))
    same(hvd.alltoall(ours(2 * n, 3), splits=torch.empty(0, dtype=torch.int32))[0], expected)


def check_alltoall_with_splits() -> None:
    mine = splits_of(hvd.rank())
    forms: list[tuple[Any, torch.dtype]] = [
        (mine, torch.int32),
        (tuple(mine), torch.int32),
        (torch.tensor(mine, dtype=torch.int32), torch.int32),
        (torch.tensor(mine), torch.int64),
    ]
    for splits, dtype in forms:
        handle = hvd.alltoall_async(ours(sum(mine), 2), splits, name="given")
        for output, sizes in (hvd.alltoall(ours(sum(mine), 2), splits), hvd.synchronize(handle)):
            same(output, received(2))
            same(sizes, torch.tensor([hvd.rank() + other for other in range(hvd.size())], dtype=dtype))


def check_alltoall_types() -> None:
    mine = splits_of(hvd.rank())
    for dtype in (*FLOATS, *INTEGERS, torch.bool):
        same(hvd.alltoall(ours(sum(mine), dtype=dtype), mine)[0], received(dtype=dtype))


def check_alltoall_of_nothing_and_of_noncontiguous_rows() -> None:
    output, sizes = hvd.alltoall(torch.empty(0, 3), [0] * hvd.size())
    same(output, torch.empty(0, 3))
    same(sizes, torch.zeros(hvd.size(), dtype=torch.int32))
    expected = torch.stack([ours(2, hvd.size(), rank=rank)[:, hvd.rank()] for rank in range(hvd.size())])
    same(hvd.alltoall(ours(2, hvd.size()).t()), expected)


def check_rows_that_splits_leave_out_are_not_sent() -> None:
    mine = splits_of(hvd.rank())
    tensor = torch.cat([ours(sum(mine)), torch.full((4,), torch.nan)]).requires_grad_()
    output, _ = hvd.alltoall(tensor, mine)
    same(output, received())
    output.sum().backward()
    same(tensor.grad, torch.cat([torch.ones(sum(mine)), torch.zeros(4)]))


def check_alltoall_arguments() -> None:
    n = hvd.size()
    with pytest.raises(ValueError, match="1D splits"):
        hvd.alltoall(ours(n), torch.ones(n, 1, dtype=torch.int32))
    with pytest.raises(ValueError, match="integer elements"):
        hvd.alltoall(ours(n), torch.ones(n))
    for rows, splits in ((n + 1, [1] * (n + 1)), (n, [2] * n), (2 * n, [1] * (n - 1) + [-1])):
        with pytest.raises((ValueError, hvd.HorovodInternalError), match="splits"):
            hvd.alltoall(ours(rows), splits)
    with pytest.raises(ValueError, match="scalar"):
        hvd.alltoall(torch.tensor(1.0))
    if n > 1:
        with pytest.raises(hvd.HorovodInternalError, match="splits"):
            hvd.alltoall(ours(n + 1))
    same(hvd.alltoall(ours(n)), torch.stack([ours(n, rank=rank)[hvd.rank()] for rank in range(n)]))


def check_gradients_of_alltoall() -> None:
    mine = splits_of(hvd.rank())
    tensor = ours(sum(mine), 2).requires_grad_()
    output, sizes = hvd.alltoall(tensor, mine)
    assert not sizes.requires_grad
    (output * (hvd.rank() + 1)).sum().backward()  # every slice gets the gradient of who received it
    expected = [torch.full((rows, 2), float(other + 1)) for other, rows in enumerate(mine)]
    same(tensor.grad, torch.cat(expected))
    equal = ours(hvd.size()).requires_grad_()
    (hvd.alltoall(equal) * (hvd.rank() + 1)).sum().backward()
    same(equal.grad, torch.arange(1.0, hvd.size() + 1))


def check_reducescatter() -> None:
    for rows in (2 * hvd.size(), 2 * hvd.size() + 1, 1, 0):
        for op in (hvd.Average, hvd.Sum):
            stacked = everybodys(rows, 2)
            total = rows_of(stacked.mean(0) if op == hvd.Average else stacked.sum(0), hvd.size(), hvd.rank())
            mine = ours(rows, 2)
            torch.testing.assert_close(hvd.reducescatter(mine, op=op), total)
            torch.testing.assert_close(hvd.synchronize(hvd.reducescatter_async(mine, name="rows", op=op)), total)
            same(mine, ours(rows, 2))


def check_reducescatter_scales_averages_and_compresses() -> None:
    n = hvd.size()
    mean = rows_of(everybodys(2 * n).mean(0), n, hvd.rank())
    torch.testing.assert_close(hvd.reducescatter(ours(2 * n)), mean)
    torch.testing.assert_close(hvd.reducescatter(ours(2 * n), prescale_factor=0.5, postscale_factor=3.0), mean * 1.5)
    halves = hvd.reducescatter(ours(2 * n), compression=hvd.Compression.fp16, op=hvd.Sum)
    same(halves, rows_of(everybodys(2 * n).sum(0), n, hvd.rank()))


def check_reducescatter_types() -> None:
    for dtype in FLOATS + INTEGERS:
        total = everybodys(hvd.size(), 3, dtype=dtype).sum(0).to(dtype)
        same(hvd.reducescatter(ours(hvd.size(), 3, dtype=dtype), op=hvd.Sum), rows_of(total, hvd.size(), hvd.rank()))
    same(
        hvd.reducescatter(ours(3, hvd.size()).t(), op=hvd.Sum),
        rows_of(everybodys(3, hvd.size()).sum(0).t(), hvd.size(), hvd.rank()),
    )


def check_grouped_reducescatter() -> None:
    n, me = hvd.size(), hvd.rank()
    tensors = [ours(n + 1, 2), ours(2 * n, dtype=torch.int64)]
    expected = [rows_of(everybodys(*t.shape, dtype=t.dtype).sum(0).to(t.dtype), n, me) for t in tensors]
    handle = hvd.grouped_reducescatter_async(tensors, name="group", op=hvd.Sum)
    for results in (hvd.grouped_reducescatter(tensors, op=hvd.Sum), hvd.synchronize(handle)):
        assert isinstance(results, list)
        for one, other in zip(results, expected, strict=True):
            same(one, other)
    assert hvd.grouped_reducescatter([]) == []


def check_gradients_of_reducescatter() -> None:
    n = hvd.size()
    lengths = [len(rows_of(torch.empty(n + 1), n, member)) for member in range(n)]
    gradients = torch.cat([torch.full((length,), float(rank + 1)) for rank, length in enumerate(lengths)])
    for op, factor in ((hvd.Average, 1.0), (hvd.Sum, float(n))):  # Horovod's rule
        tensor = ours(n + 1).requires_grad_()
        (hvd.reducescatter(tensor, op=op, prescale_factor=2.0) * (hvd.rank() + 1)).sum().backward()
        torch.testing.assert_close(tensor.grad, gradients * factor * 2)
        pair = [ours(n + 1).requires_grad_(), ours(n + 1).requires_grad_()]
        first, second = hvd.grouped_reducescatter(pair, op=op)
        ((first + 3 * second) * (hvd.rank() + 1)).sum().backward()
        torch.testing.assert_close(pair[0].grad, gradients * factor)
        torch.testing.assert_close(pair[1].grad, gradients * factor * 3)


def check_reducescatter_arguments() -> None:
    for op in (hvd.Min, hvd.Max, hvd.Product, hvd.Adasum):
        with pytest.raises(ValueError, match="only Average and Sum"):
            hvd.reducescatter(ours(2), op=op)
    with pytest.raises(ValueError, match="scalar"):
        hvd.reducescatter(torch.tensor(1.0))


def check_ranks_that_disagree_all_get_an_error() -> None:
    n = hvd.size()
    if n == 1:
        return
    odd = hvd.rank() % 2
    with pytest.raises(hvd.HorovodInternalError, match=r"reducescatter\.rows"):
        hvd.reducescatter(ours(n + odd), name="rows")
    with pytest.raises(hvd.HorovodInternalError, match=r"alltoall\.columns"):
        hvd.alltoall(ours(n, 2 + odd), name="columns")
    torch.testing.assert_close(hvd.reducescatter(ours(n)), rows_of(everybodys(n).mean(0), n, hvd.rank()))


if __name__ == "__main__":
    run_checks(globals())
