"""Checks of collective operations on tensors; run by test_ops.py."""

from __future__ import annotations

import hvd_gossip.torch as hvd
import pytest
import torch

from tests.torch_frontend.ranks import run_checks

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def ours(*shape: int, dtype: torch.dtype = torch.float32, rank: int | None = None) -> torch.Tensor:
    """A rank's tensor of small whole numbers: exact in every type, different on every rank."""
    rank = hvd.rank() if rank is None else rank
    numbers = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return ((numbers + rank) % 5).to(dtype)


def everybodys(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """All ranks' tensors, stacked."""
    return torch.stack([ours(*shape, dtype=dtype, rank=rank) for rank in range(hvd.size())])


def check_ranks() -> None:
    assert 0 <= hvd.rank() < hvd.size()
    assert (hvd.local_rank(), hvd.local_size()) == (hvd.rank(), hvd.size())
    assert (hvd.cross_rank(), hvd.cross_size()) == (0, 1)
    assert hvd.is_initialized()
    assert hvd.is_homogeneous()
    assert hvd.mpi_enabled()
    assert isinstance(hvd.mpi_threads_supported(), bool)
    assert (hvd.global_process_set.rank(), hvd.global_process_set.size()) == (hvd.rank(), hvd.size())
    assert hvd.global_process_set.ranks == list(range(hvd.size()))
    hvd.init(algorithm="adpsgd")  # a second call does nothing


def check_allreduce_combines() -> None:
    stacked = everybodys(3, 4)
    expected = {
        hvd.Average: stacked.mean(0),
        hvd.Sum: stacked.sum(0),
        hvd.Min: stacked.amin(0),
        hvd.Max: stacked.amax(0),
        hvd.Product: stacked.prod(0),
    }
    for op, value in expected.items():
        torch.testing.assert_close(hvd.allreduce(ours(3, 4), op=op), value)
    torch.testing.assert_close(hvd.allreduce(ours(3, 4)), expected[hvd.Average])


def check_allreduce_types_and_shapes() -> None:
    for dtype in FLOATS + INTEGERS:
        torch.testing.assert_close(
            hvd.allreduce(ours(7, dtype=dtype), op=hvd.Sum), everybodys(7, dtype=dtype).sum(0).to(dtype)
        )
    for shape in ((), (0,), (1,), (2, 0, 3), (70_001,)):
        torch.testing.assert_close(hvd.allreduce(ours(*shape), op=hvd.Max), everybodys(*shape).amax(0))


def check_allreduce_leaves_the_input_alone_and_scales() -> None:
    tensor = ours(5)
    result = hvd.allreduce(tensor, prescale_factor=0.5, postscale_factor=3.0)
    torch.testing.assert_close(tensor, ours(5))
    torch.testing.assert_close(result, everybodys(5).mean(0) * 1.5)


def check_allreduce_in_place() -> None:
    tensor = ours(5)
    assert hvd.allreduce_(tensor, op=hvd.Sum) is tensor
    torch.testing.assert_close(tensor, everybodys(5).sum(0))
    transposed = ours(3, 4).t()
    assert hvd.allreduce_(transposed, op=hvd.Sum) is transposed
    torch.testing.assert_close(transposed, everybodys(3, 4).sum(0).t())


def check_in_place_operations_tell_autograd() -> None:
    weight = ours(4).requires_grad_()
    loss = (weight * weight).sum()
    hvd.broadcast_(weight, root_rank=0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def check_asynchronous_operations_in_different_orders() -> None:
    names = ["first", "second", "third"]
    own = names if hvd.rank() % 2 else names[::-1]
    handles = {name: hvd.allreduce_async(ours(3) * (1 + names.index(name)), name=name, op=hvd.Sum) for name in own}
    for name in names:
        output = hvd.synchronize(handles[name])
        assert hvd.poll(handles[name])
        assert hvd.synchronize(handles[name]) is output
        torch.testing.assert_close(output, everybodys(3).sum(0) * (1 + names.index(name)))


def check_names_are_free_again_and_apart_by_kind() -> None:
    for _ in range(2):
        torch.testing.assert_close(hvd.allreduce(ours(2), name="x"), everybodys(2).mean(0))
    one, other = hvd.allreduce_async(ours(2), name="x"), hvd.broadcast_async(ours(2), 0, name="x")
    torch.testing.assert_close(hvd.synchronize(one), everybodys(2).mean(0))
    torch.testing.assert_close(hvd.synchronize(other), ours(2, rank=0))


def check_compression() -> None:
    for compression in (hvd.Compression.none, hvd.Compression.fp16, hvd.Compression.bf16):
        result = hvd.allreduce(ours(9), compression=compression, op=hvd.Sum)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, everybodys(9).sum(0))
    fine = torch.tensor([1.0 + 2**-13])
    assert hvd.allreduce(fine, compression=hvd.Compression.fp16).item() == 1.0


def check_allgather() -> None:
    mine = ours(hvd.rank() + 1, 2)
    expected = torch.cat([ours(rank + 1, 2, rank=rank) for rank in range(hvd.size())])
    torch.testing.assert_close(hvd.allgather(mine), expected)
    torch.testing.assert_close(hvd.synchronize(hvd.allgather_async(mine, name="gathered")), expected)
    only_last = ours(3 if hvd.rank() == hvd.size() - 1 else 0, dtype=torch.bfloat16)
    torch.testing.assert_close(hvd.allgather(only_last), ours(3, dtype=torch.bfloat16, rank=hvd.size() - 1))


def check_broadcast() -> None:
    root = hvd.size() - 1
    for dtype in (*FLOATS, *INTEGERS, torch.bool):
        torch.testing.assert_close(hvd.broadcast(ours(4, dtype=dtype), root), ours(4, dtype=dtype, rank=root))
    tensor = ours(2, 3).t()
    assert hvd.broadcast_(tensor, root) is tensor
    torch.testing.assert_close(tensor, ours(2, 3, rank=root).t())
    torch.testing.assert_close(hvd.synchronize(hvd.broadcast_async_(ours(2), root)), ours(2, rank=root))


def check_gradients_of_allreduce() -> None:
    for op, factor in ((hvd.Average, 1.0), (hvd.Sum, float(hvd.size()))):
        tensor = ours(3).requires_grad_()
        weights = torch.full((3,), 2.0)
        (hvd.allreduce(tensor, op=op) * weights).sum().backward()
        torch.testing.assert_close(tensor.grad, weights * factor)
    tensor = ours(3).requires_grad_()
    with pytest.raises(NotImplementedError, match=r"allreduce\.largest.*op=Average and op=Sum"):
        hvd.allreduce(tensor, name="largest", op=hvd.Max).sum().backward()


def check_gradients_of_allgather() -> None:
    tensor = ours(hvd.rank() + 1, 2).requires_grad_()
    gathered = hvd.allgather(tensor)
    weights = torch.arange(gathered.numel(), dtype=torch.float32).reshape(gathered.shape)
    (gathered * weights * (hvd.rank() + 1)).sum().backward()
    start = sum(range(1, hvd.rank() + 1))
    mean_factor = sum(range(1, hvd.size() + 1)) / hvd.size()
    torch.testing.assert_close(tensor.grad, weights[start : start + hvd.rank() + 1] * mean_factor)


def check_gradients_of_broadcast() -> None:
    tensor = ours(3).requires_grad_()
    (hvd.broadcast(tensor, 0) * (hvd.rank() + 1)).sum().backward()
    mean_factor = sum(range(1, hvd.size() + 1)) / hvd.size()
    torch.testing.assert_close(tensor.grad, torch.full((3,), mean_factor if hvd.rank() == 0 else 0.0))


def check_second_derivatives() -> None:
    tensor = ours(3).requires_grad_()
    (first,) = torch.autograd.grad((hvd.allreduce(tensor, op=hvd.Sum) ** 3).sum(), tensor, create_graph=True)
    first.sum().backward()
    total = everybodys(3).sum(0)
    torch.testing.assert_close(tensor.grad, 6 * total * hvd.size() ** 2)


def check_deprecated_average() -> None:
    with pytest.warns(DeprecationWarning, match="replaced with `op`"):
        torch.testing.assert_close(hvd.allreduce(ours(2), average=False), everybodys(2).sum(0))
    with pytest.raises(ValueError, match="supersedes average"):
        hvd.allreduce(ours(2), average=True, op=hvd.Sum)


def check_what_cannot_be_communicated() -> None:
    with pytest.raises(NotImplementedError, match="Adasum"):
        hvd.allreduce(ours(2), op=hvd.Adasum)
    with pytest.raises(ValueError, match=r"not supported; supported: float32"):
        hvd.allreduce(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="to_dense"):
        hvd.allreduce(torch.eye(2).to_sparse())
    with pytest.raises(TypeError, match=r"torch\.Tensor"):
        hvd.allreduce([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scalar"):
        hvd.allgather(torch.tensor(1.0))
    with pytest.raises(NotImplementedError, match="process set"):
        hvd.barrier(process_set=object())  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="process sets"):
        hvd.ProcessSet([0])
    with pytest.raises(TypeError, match="handle"):
        hvd.synchronize(3)  # type: ignore[arg-type]


def check_ranks_that_disagree_all_get_an_error() -> None:
    if hvd.size() == 1:
        return
    with pytest.raises(hvd.HorovodInternalError, match=r"allreduce\.odd"):
        hvd.allreduce(ours(2 + hvd.rank() % 2), name="odd")
    with pytest.raises(hvd.HorovodInternalError, match=r"broadcast\.root"):
        hvd.broadcast(ours(2), root_rank=hvd.rank() % 2, name="root")
    torch.testing.assert_close(hvd.allreduce(ours(2)), everybodys(2).mean(0))  # and go on


def check_objects() -> None:
    thing = {"rank": hvd.rank(), "words": ["a"] * hvd.rank()}
    received = hvd.broadcast_object(thing, root_rank=hvd.size() - 1)
    assert received == {"rank": hvd.size() - 1, "words": ["a"] * (hvd.size() - 1)}
    assert hvd.broadcast_object(lambda: 7, name="function")() == 7
    assert hvd.allgather_object(thing) == [{"rank": r, "words": ["a"] * r} for r in range(hvd.size())]


if __name__ == "__main__":
    run_checks(globals())
