"""How one parameter's gradient is reduced over all ranks: dense, compressed, or sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hvd_gossip.basics import operation_name
from hvd_gossip.collectives import Average, Sum

from .arrays import is_dense, memory_of
from .handles import Handle
from .options import Options
from .submit import gather, reduce_into


def start_reduction(name: str, parameter: torch.Tensor, options: Options, **more: Any) -> Handle[None]:
    """Starts reducing `parameter.grad`; the handle's `wait()` puts the result there. No gradient counts as zeros.

    Args:
        name: the parameter's name.
        more: further fields of the request.

    Raises:
        ValueError: the gradient's type cannot be communicated, or it was made with `create_graph=True`.
        NotImplementedError: a sparse gradient, which only Average and Sum can combine.
    """
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter, requires_grad=False)
    gradient = parameter.grad
    if gradient.requires_grad:
        raise ValueError(
            f"the gradient of {name} is part of a graph (create_graph=True) and cannot be reduced in place"
        )
    full_name = operation_name("allreduce", name)
    if not gradient.is_sparse:
        return _start_dense(full_name, parameter, gradient, gradient, options, more)
    if options.sparse_as_dense:
        return _start_dense(full_name, parameter, gradient, gradient.to_dense(), options, more)
    return _start_sparse(full_name, gradient, options)


def _start_dense(
    name: str,
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    dense: torch.Tensor,
    options: Options,
    more: dict[str, Any],
) -> Handle[None]:
    compressed, ctx = options.compression.compress(dense)
    work = _laid_out_like(parameter, compressed)
    memory = memory_of(work)
    factor = options.gradient_predivide_factor
    handle = reduce_into(memory, memory, name, options.op, 1.0 / factor, factor, **more)

    def finish(_: object) -> None:
        result = options.compression.decompress(work, ctx)
        if gradient.is_sparse:
            parameter.grad = result.to_sparse(gradient.sparse_dim())
        elif result is not gradient:
            gradient.copy_(result)

    return Handle(handle, finish)


def _laid_out_like(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy with the parameter's strides: ranks must send elements in the same order."""
    if tensor.shape != parameter.shape:  # a compressor of the user's own
        return tensor.contiguous()
    if tensor.stride() == parameter.stride() and is_dense(tensor):
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _start_sparse(name: str, gradient: torch.Tensor, options: Options) -> Handle[None]:
    """Gathers indices and values. Under the name that a dense gradient has, so that ranks that disagree get an error."""
    if options.op not in (Average, Sum):
        raise NotImplementedError(
            f"{name}: sparse gradients can only be averaged or summed; or use sparse_as_dense=True"
        )
    own = gradient.coalesce()
    parts = [gather(own.indices().t().contiguous(), name), gather(own.values().contiguous(), f"{name}.values")]

    def finish(results: Sequence[Any]) -> None:
        indices, values = (result.output for result in results)
        if options.op == Average:
            values = values / len(results[0].sizes)
        total = torch.sparse_coo_tensor(indices.t(), values, gradient.shape, check_invariants=True).coalesce()
        gradient.zero_().add_(total)

    return Handle(_All(parts), finish)


class _All:
    """Several handles as one."""

    def __init__(self, handles: Sequence[Handle[Any]]) -> None:
        self._handles = handles

    def done(self) -> bool:
        return all(handle.done() for handle in self._handles)

    def wait(self) -> list[Any]:
        return [handle.wait() for handle in self._handles]
