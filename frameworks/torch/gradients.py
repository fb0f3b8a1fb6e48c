"""How one parameter's gradient is reduced over all ranks: dense, compressed, or sparse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hvd_gossip.basics import operation_name

from .arrays import is_dense, memory_of
from .handles import Handle
from .options import Options
from .sparse import reduce_sparse
from .submit import Call, reduce_into


def start_reduction(name: str, parameter: torch.Tensor, options: Options, fields: Mapping[str, Any]) -> Handle[None]:
    """Starts reducing `parameter.grad`, which is not None; the handle's `wait()` puts the result there.

    Args:
        name: the parameter's name.
        fields: further fields of the request.

    Raises:
        ValueError: the gradient's type cannot be communicated, or it was made with `create_graph=True`.
        NotImplementedError: a sparse gradient, which only Average and Sum can combine.
    """
    gradient = parameter.grad
    assert gradient is not None
    if gradient.requires_grad:
        raise ValueError(
            f"the gradient of {name} is part of a graph (create_graph=True) and cannot be reduced in place"
        )
    full_name = operation_name("allreduce", name)
    if not gradient.is_sparse:
        return _start_dense(full_name, parameter, gradient, gradient, options, fields)
    if options.sparse_as_dense:
        return _start_dense(full_name, parameter, gradient, gradient.to_dense(), options, fields)
    total = reduce_sparse(Call("allreduce", full_name, fields), gradient, options.op)
    return Handle(total, lambda total: _put_sparse(gradient, total))


def no_gradient(parameter: torch.Tensor, sparse_dim: int) -> torch.Tensor:
    """Zeros in place of a missing gradient.

    Args:
        sparse_dim: of the gradients that the parameter had before; 0 for dense ones.
    """
    if not sparse_dim:
        return torch.zeros_like(parameter, requires_grad=False)
    indices = torch.empty(sparse_dim, 0, dtype=torch.int64, device=parameter.device)
    values = torch.empty(0, *parameter.shape[sparse_dim:], dtype=parameter.dtype, device=parameter.device)
    return torch.sparse_coo_tensor(indices, values, parameter.shape, is_coalesced=True, check_invariants=False)


def is_dense_on_its_way(parameter: torch.Tensor, options: Options) -> bool:
    """Whether the parameter's gradient, which is not None, travels as a dense tensor."""
    return options.sparse_as_dense or not parameter.grad.is_sparse  # type: ignore[union-attr]


def laid_out_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy with the parameter's strides: ranks must send elements in the same order."""
    if tensor.shape != parameter.shape:  # a compressor of the user's own
        return tensor.contiguous()
    if tensor.stride() == parameter.stride() and (tensor.is_contiguous() or is_dense(tensor)):
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _start_dense(
    name: str,
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    dense: torch.Tensor,
    options: Options,
    fields: Mapping[str, Any],
) -> Handle[None]:
    compressed, ctx = options.compression.compress(dense)
    work = laid_out_like(parameter, compressed)
    memory = memory_of(work)
    factor = options.gradient_predivide_factor
    handle = reduce_into(memory, memory, name, options.op, 1.0 / factor, factor, **fields)

    def finish(_: object) -> None:
        result = options.compression.decompress(work, ctx)
        if gradient.is_sparse:
            _put_sparse(gradient, result.to_sparse(gradient.sparse_dim()))
        elif result is not gradient:
            gradient.copy_(result)

    return Handle(handle, finish)


def _put_sparse(gradient: torch.Tensor, total: torch.Tensor) -> None:
    gradient.zero_().add_(total)
