"""Checks of allgather, broadcast and objects; run by test_gather_ops.py."""

from __future__ import annotations

import hvd_gossip.torch as hvd
import pytest
import torch

from tests.torch_frontend.ranks import run_checks
from tests.torch_frontend.tensors import FLOATS, INTEGERS, ours, same


def joined(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What an allgather gives of tensors of which rank r's has r + 1 rows."""
    return torch.cat([ours(rank + 1, *shape, dtype=dtype, rank=rank) for rank in range(hvd.size())])


def check_allgather() -> None:
    mine = ours(hvd.rank() + 1, 2)
    same(hvd.allgather(mine), joined(2))
    same(hvd.synchronize(hvd.allgather_async(mine, name="gathered")), joined(2))
    same(mine, ours(hvd.rank() + 1, 2))
    only_last = ours(3 if hvd.rank() == hvd.size() - 1 else 0, dtype=torch.bfloat16)
    same(hvd.allgather(only_last), ours(3, dtype=torch.bfloat16, rank=hvd.size() - 1))
    same(hvd.allgather(torch.empty(0, 4)), torch.empty(0, 4))
    transposed = [ours(2, rank + 1, rank=rank).t() for rank in range(hvd.size())]
    same(hvd.allgather(transposed[hvd.rank()]), torch.cat(transposed))


def check_allgather_types() -> None:
    for dtype in (*FLOATS, *INTEGERS, torch.bool):
        same(hvd.allgather(ours(hvd.rank() + 1, dtype=dtype)), joined(dtype=dtype))


def check_grouped_allgather() -> None:
    tensors = [ours(hvd.rank() + 1, 2), ours(hvd.rank() + 1, dtype=torch.int64)]
    expected = [joined(2), joined(dtype=torch.int64)]
    handle = hvd.grouped_allgather_async(tensors, name="group")
    for results in (hvd.grouped_allgather(tensors), hvd.synchronize(handle)):
        assert isinstance(results, list)
        for one, other in zip(results, expected, strict=True):
            same(one, other)
    assert hvd.poll(handle)
    assert hvd.grouped_allgather([]) == []


def check_broadcast() -> None:
    root = hvd.size() - 1
    for dtype in (*FLOATS, *INTEGERS, torch.bool):
        same(hvd.broadcast(ours(4, dtype=dtype), root), ours(4, dtype=dtype, rank=root))
    for shape in ((), (0,), (3, 0), (70_001,)):
        same(hvd.broadcast(ours(*shape), root), ours(*shape, rank=root))
    tensor = ours(2, 3).t()
    assert hvd.broadcast_(tensor, root) is tensor
    same(tensor, ours(2, 3, rank=root).t())
    same(hvd.synchronize(hvd.broadcast_async_(ours(2), root)), ours(2, rank=root))
    mine = ours(2)
    same(hvd.synchronize(hvd.broadcast_async(mine, root, name="new")), ours(2, rank=root))
    same(mine, ours(2))


def check_in_place_operations_tell_autograd() -> None:
    weight = ours(4).requires_grad_()
    loss = (weight * weight).sum()
    hvd.broadcast_(weight, root_rank=0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def weighted(gathered: torch.Tensor) -> torch.Tensor:
    """The gradient that this rank gives to what it gathered."""
    return torch.arange(gathered.numel(), dtype=torch.float32).reshape(gathered.shape) * (hvd.rank() + 1)


def own_gradient(shape: tuple[int, ...]) -> torch.Tensor:
    """This rank's part of the average of all ranks' gradients."""
    weights = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    start = sum(range(1, hvd.rank() + 1))
    return weights[start : start + hvd.rank() + 1] * (sum(range(1, hvd.size() + 1)) / hvd.size())


def check_gradients_of_allgather() -> None:
    tensor = ours(hvd.rank() + 1, 2).requires_grad_()
    gathered = hvd.allgather(tensor)
    gathered.backward(weighted(gathered))
    torch.testing.assert_close(tensor.grad, own_gradient(gathered.shape))


def check_gradients_of_grouped_allgather() -> None:
    tensors = [ours(hvd.rank() + 1, 2).requires_grad_(), ours(hvd.rank() + 1).requires_grad_()]
    gathered = hvd.grouped_allgather(tensors)
    torch.autograd.backward(gathered, [weighted(each) for each in gathered])
    for tensor, each in zip(tensors, gathered, strict=True):
        torch.testing.assert_close(tensor.grad, own_gradient(each.shape))


def check_gradients_of_broadcast() -> None:
    tensor = ours(3).requires_grad_()
    (hvd.broadcast(tensor, 0) * (hvd.rank() + 1)).sum().backward()
    mean_factor = sum(range(1, hvd.size() + 1)) / hvd.size()
    torch.testing.assert_close(tensor.grad, torch.full((3,), mean_factor if hvd.rank() == 0 else 0.0))


def check_what_cannot_be_communicated() -> None:
    with pytest.raises(ValueError, match="scalar"):
        hvd.allgather(torch.tensor(1.0))
    with pytest.raises(ValueError, match=f"root rank {hvd.size()} is not one of"):
        hvd.broadcast(ours(2), root_rank=hvd.size())


def check_ranks_that_disagree_all_get_an_error() -> None:
    if hvd.size() == 1:
        return
    odd = hvd.rank() % 2
    with pytest.raises(hvd.HorovodInternalError, match=r"broadcast\.root"):
        hvd.broadcast(ours(2), root_rank=odd, name="root")
    with pytest.raises(hvd.HorovodInternalError, match=r"allgather\.columns"):
        hvd.allgather(ours(2, 2 + odd), name="columns")
    with pytest.raises(hvd.HorovodInternalError, match=r"x_2of2"):
        hvd.grouped_allgather([ours(1), ours(2, dtype=torch.int32 if odd else torch.int64)], name="x")
    same(hvd.broadcast(ours(2), 0), ours(2, rank=0))  # and go on


def check_objects() -> None:
    thing = {"rank": hvd.rank(), "words": ["a"] * hvd.rank()}
    received = hvd.broadcast_object(thing, root_rank=hvd.size() - 1)
    assert received == {"rank": hvd.size() - 1, "words": ["a"] * (hvd.size() - 1)}
    assert hvd.broadcast_object(lambda: 7, name="function")() == 7
    assert hvd.allgather_object(thing) == [{"rank": r, "words": ["a"] * r} for r in range(hvd.size())]


if __name__ == "__main__":
    run_checks(globals())
