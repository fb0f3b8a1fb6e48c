"""Horovod, API, horovod.torch: operations in place."""

from __future__ import annotations

import torch

from tests.conformance.case import Cases, everybodys, numbers, ours, same
from tests.conformance.torch_framework import TorchFramework

CASES = Cases()


@CASES.add()
def allreduce_in_place(f: TorchFramework) -> None:
    """API, allreduce_: in-place averaging or summation; returns the tensor."""
    for dtype in f.reduced:
        tensor = ours(f, 4, dtype=dtype)
        result = f.hvd.allreduce_(tensor, op=f.hvd.Sum)
        same(f, tensor, everybodys(f, 4).sum(0), dtype)
        assert result.data_ptr() == tensor.data_ptr()


@CASES.add()
def allreduce_in_place_asynchronously(f: TorchFramework) -> None:
    """API, allreduce_async_: in-place, complete after synchronize()."""
    tensor = ours(f, 4)
    handle = f.hvd.allreduce_async_(tensor, prescale_factor=2.0)
    f.hvd.synchronize(handle)
    same(f, tensor, everybodys(f, 4).mean(0) * 2)


@CASES.add()
def grouped_allreduce_in_place(f: TorchFramework) -> None:
    """API, grouped_allreduce_, grouped_allreduce_async_: in-place, tensor by tensor."""
    tensors = [ours(f, 3), ours(f, 2, 2)]
    f.hvd.grouped_allreduce_(tensors, op=f.hvd.Sum)
    same(f, tensors[0], everybodys(f, 3).sum(0))
    same(f, tensors[1], everybodys(f, 2, 2).sum(0))
    tensors = [ours(f, 3), ours(f, 2, 2)]
    f.hvd.synchronize(f.hvd.grouped_allreduce_async_(tensors))
    same(f, tensors[0], everybodys(f, 3).mean(0))


@CASES.add()
def broadcast_in_place(f: TorchFramework) -> None:
    """API, broadcast_, broadcast_async_: performed in-place."""
    root = f.hvd.size() - 1
    for dtype in f.moved:
        below = 2 if dtype == "bool" else 5
        tensor = ours(f, 4, dtype=dtype, below=below)
        f.hvd.broadcast_(tensor, root)
        same(f, tensor, numbers(root, 4, below=below), dtype)
    tensor = ours(f, 4)
    f.hvd.synchronize(f.hvd.broadcast_async_(tensor, root))
    same(f, tensor, numbers(root, 4))


@CASES.add()
def parts_of_tensors_are_reduced_in_place(f: TorchFramework) -> None:
    """API, allreduce_, broadcast_: of a view; what lies beside it stays."""
    whole = ours(f, 4, 4)
    f.hvd.allreduce_(whole[1:3], op=f.hvd.Sum)
    f.hvd.broadcast_(whole[0], 0)
    same(f, whole[1:3], everybodys(f, 4, 4).sum(0)[1:3])
    same(f, whole[0], numbers(0, 4, 4)[0])
    same(f, whole[3], numbers(f.hvd.rank(), 4, 4)[3])


@CASES.add()
def columns_are_reduced_in_place(f: TorchFramework) -> None:
    """API, allreduce_, broadcast_: of a tensor that does not lie in memory row by row."""
    whole = ours(f, 3, 4)
    f.hvd.allreduce_(whole[:, 1:3], op=f.hvd.Sum)
    same(f, whole[:, 1:3], everybodys(f, 3, 4).sum(0)[:, 1:3])
    f.hvd.broadcast_(whole[:, 3], 0)
    same(f, whole[:, 3], numbers(0, 3, 4)[:, 3])
    same(f, whole[:, 0], numbers(f.hvd.rank(), 3, 4)[:, 0])


@CASES.add()
def a_parameter_is_reduced_in_place(f: TorchFramework) -> None:
    """API, allreduce_, broadcast_: of a leaf that requires a gradient, as scripts average models."""
    parameter = torch.nn.Parameter(ours(f, 3))
    f.hvd.allreduce_(parameter.data, op=f.hvd.Average)
    same(f, parameter, everybodys(f, 3).mean(0))
