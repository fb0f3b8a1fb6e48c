"""Checks of allreduce and grouped_allreduce; run by test_reduce_ops.py."""

from __future__ import annotations

import hvd_gossip.torch as hvd
import pytest
import torch

from tests.torch_frontend.ranks import run_checks
from tests.torch_frontend.tensors import FLOATS, INTEGERS, everybodys, ours, same


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
        same(hvd.allreduce(ours(7, dtype=dtype), op=hvd.Sum), everybodys(7, dtype=dtype).sum(0).to(dtype))
    for dtype in INTEGERS:
        same(hvd.allreduce(ours(7, dtype=dtype)), everybodys(7, dtype=dtype).sum(0).to(dtype) // hvd.size())
    for shape in ((), (0,), (1,), (2, 0, 3), (70_001,)):
        same(hvd.allreduce(ours(*shape), op=hvd.Max), everybodys(*shape).amax(0))


def check_allreduce_of_noncontiguous_tensors() -> None:
    same(hvd.allreduce(ours(3, 4).t(), op=hvd.Sum), everybodys(3, 4).sum(0).t())
    same(hvd.allreduce(ours(8)[::2], op=hvd.Sum), everybodys(8).sum(0)[::2])
    same(hvd.allreduce(ours(1).expand(3), op=hvd.Sum), everybodys(1).sum(0).expand(3))


def check_allreduce_leaves_the_input_alone_and_scales() -> None:
    tensor = ours(5)
    result = hvd.allreduce(tensor, prescale_factor=0.5, postscale_factor=3.0)
    same(tensor, ours(5))
    torch.testing.assert_close(result, everybodys(5).mean(0) * 1.5)


def check_allreduce_in_place() -> None:
    tensor = ours(5)
    assert hvd.allreduce_(tensor, op=hvd.Sum) is tensor
    same(tensor, everybodys(5).sum(0))
    transposed = ours(3, 4).t()
    assert hvd.allreduce_(transposed, op=hvd.Sum) is transposed
    same(transposed, everybodys(3, 4).sum(0).t())
    every_second = ours(8)[::2]
    assert hvd.synchronize(hvd.allreduce_async_(every_second, op=hvd.Max)) is every_second
    same(every_second, everybodys(8).amax(0)[::2])


def check_in_place_operations_tell_autograd() -> None:
    weight = ours(4).requires_grad_()
    loss = (weight * weight).sum()
    hvd.allreduce_(weight)
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
        same(output, everybodys(3).sum(0) * (1 + names.index(name)))


def check_names_are_free_again_and_apart_by_kind() -> None:
    for _ in range(2):
        torch.testing.assert_close(hvd.allreduce(ours(2), name="x"), everybodys(2).mean(0))
    one, other = hvd.allreduce_async(ours(2), name="x"), hvd.broadcast_async(ours(2), 0, name="x")
    torch.testing.assert_close(hvd.synchronize(one), everybodys(2).mean(0))
    same(hvd.synchronize(other), ours(2, rank=0))


def check_a_name_that_is_in_use_is_refused() -> None:
    names = [f"of rank {rank}" for rank in range(hvd.size())]
    mine = hvd.allreduce_async(ours(2), name=names[hvd.rank()])
    if hvd.size() > 1:  # nobody else has submitted it
        with pytest.raises(ValueError, match=f"of rank {hvd.rank()}"):
            hvd.allreduce(ours(2), name=names[hvd.rank()])
        hvd.barrier()
    others = [hvd.allreduce_async(ours(2), name=name) for name in names if name != names[hvd.rank()]]
    for handle in (mine, *others):
        torch.testing.assert_close(hvd.synchronize(handle), everybodys(2).mean(0))


def check_compression() -> None:
    for compression in (hvd.Compression.none, hvd.Compression.fp16, hvd.Compression.bf16):
        result = hvd.allreduce(ours(9), compression=compression, op=hvd.Sum)
        same(result, everybodys(9).sum(0))
        results = hvd.grouped_allreduce([ours(9), ours(2, dtype=torch.int32)], compression=compression, op=hvd.Sum)
        same(results[0], everybodys(9).sum(0))
        same(results[1], everybodys(2, dtype=torch.int32).sum(0).int())
    fine = torch.tensor([1.0 + 2**-13])
    assert hvd.allreduce(fine, compression=hvd.Compression.fp16).item() == 1.0


def check_grouped_allreduce() -> None:
    tensors = [ours(3), ours(2, 2, dtype=torch.float64), ours(4, dtype=torch.int32), ours()]
    expected = [everybodys(*t.shape, dtype=t.dtype).sum(0).to(t.dtype) for t in tensors]
    for own in (
        hvd.grouped_allreduce(tensors, op=hvd.Sum),
        hvd.synchronize(hvd.grouped_allreduce_async(tensors, op=1)),
    ):
        assert isinstance(own, list)
        for one, other in zip(own, expected, strict=True):
            same(one, other)
    same(tensors[0], ours(3))
    (average,) = hvd.grouped_allreduce([ours(3)], name="one", prescale_factor=2.0)
    torch.testing.assert_close(average, everybodys(3).mean(0) * 2)
    assert hvd.grouped_allreduce([]) == []
    assert hvd.grouped_allreduce_([]) == []
    assert hvd.synchronize(hvd.grouped_allreduce_async([])) == []


def check_grouped_allreduce_in_place() -> None:
    for asynchronous in (False, True):
        tensors = [ours(3), ours(3, 4).t()]
        if asynchronous:
            handle = hvd.grouped_allreduce_async_(tensors, name="in place", op=hvd.Max)
            outputs = hvd.synchronize(handle)
            assert hvd.poll(handle)
        else:
            outputs = hvd.grouped_allreduce_(tensors, op=hvd.Max)
        assert [id(tensor) for tensor in outputs] == [id(tensor) for tensor in tensors]
        same(tensors[0], everybodys(3).amax(0))
        same(tensors[1], everybodys(3, 4).amax(0).t())


def check_a_group_is_carried_out_as_a_whole() -> None:
    if hvd.size() == 1:
        return
    shape = 2 + hvd.rank() % 2
    with pytest.raises(hvd.HorovodInternalError, match=r"grouped_allreduce\.whole"):
        hvd.grouped_allreduce([ours(3), ours(shape)], name="whole")
    results = hvd.grouped_allreduce([ours(3), ours(2)], name="whole")
    torch.testing.assert_close(results, [everybodys(3).mean(0), everybodys(2).mean(0)])


def check_gradients_of_allreduce() -> None:
    for op, factor in ((hvd.Average, 1.0), (hvd.Sum, float(hvd.size()))):
        tensor = ours(3).requires_grad_()
        weights = torch.full((3,), 2.0)
        (hvd.allreduce(tensor, op=op, prescale_factor=0.5) * weights).sum().backward()
        torch.testing.assert_close(tensor.grad, weights * factor * 0.5)
    tensor = ours(3).requires_grad_()
    for op in (hvd.Max, hvd.Min, hvd.Product):
        with pytest.raises(NotImplementedError, match=r"allreduce\.largest.*op=Average and op=Sum"):
            hvd.allreduce(tensor, name="largest", op=op).sum().backward()


def check_gradients_of_grouped_allreduce() -> None:
    for op, factor in ((hvd.Average, 1.0 / hvd.size()), (hvd.Sum, 1.0)):
        tensors = [ours(3).requires_grad_(), ours(2), ours(2, 2).requires_grad_()]
        first, _, last = hvd.grouped_allreduce(tensors, op=op)
        ((hvd.rank() + 1) * first.sum() + 3 * last.sum()).backward()
        total = sum(range(1, hvd.size() + 1))
        torch.testing.assert_close(tensors[0].grad, torch.full((3,), total * factor))
        torch.testing.assert_close(tensors[2].grad, torch.full((2, 2), 3 * hvd.size() * factor))
        assert tensors[1].grad is None


def check_second_derivatives() -> None:
    tensor = ours(3).requires_grad_()
    (first,) = torch.autograd.grad((hvd.allreduce(tensor, op=hvd.Sum) ** 3).sum(), tensor, create_graph=True)
    first.sum().backward()
    total = everybodys(3).sum(0)
    torch.testing.assert_close(tensor.grad, 6 * total * hvd.size() ** 2)


def check_deprecated_average() -> None:
    for function in (hvd.allreduce, hvd.allreduce_):
        with pytest.warns(DeprecationWarning, match="replaced with `op`") as caught:
            same(function(ours(2), average=False), everybodys(2).sum(0))
        assert caught[0].filename == __file__
    with pytest.raises(ValueError, match="supersedes average"):
        hvd.allreduce(ours(2), average=True, op=hvd.Sum)


def check_what_cannot_be_communicated() -> None:
    with pytest.raises(ValueError, match=r"not supported; supported: float32"):
        hvd.allreduce(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="to_dense"):
        hvd.allreduce(torch.eye(2).to_sparse())
    with pytest.raises(ValueError, match="supported"):
        hvd.allreduce(torch.zeros(2, device="meta"))
    with pytest.raises(ValueError, match="99"):
        hvd.allreduce(ours(2), op=99)
    with pytest.raises(ValueError, match="bool"):
        hvd.allreduce(torch.ones(2, dtype=torch.bool))
    for wrong in ([1.0], None, 3):
        with pytest.raises(TypeError, match=r"torch\.Tensor"):
            hvd.allreduce_(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="handle"):
        hvd.synchronize(3)  # type: ignore[arg-type]


def check_ranks_that_disagree_all_get_an_error() -> None:
    if hvd.size() == 1:
        return
    odd = hvd.rank() % 2
    with pytest.raises(hvd.HorovodInternalError, match=r"allreduce\.shape"):
        hvd.allreduce(ours(2 + odd), name="shape")
    with pytest.raises(hvd.HorovodInternalError, match=r"allreduce\.type"):
        hvd.allreduce(ours(2, dtype=torch.float64 if odd else torch.float32), name="type")
    with pytest.raises(hvd.HorovodInternalError, match=r"allreduce\.op"):
        hvd.allreduce(ours(2), name="op", op=hvd.Max if odd else hvd.Sum)
    torch.testing.assert_close(hvd.allreduce(ours(2)), everybodys(2).mean(0))  # and go on


if __name__ == "__main__":
    run_checks(globals())
