"""How one parameter's gradient is reduced over all ranks: dense, compressed, or sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hvd_gossip.basics import operation_name
from hvd_gossip.calls import Call
from hvd_gossip.gradient_options import reduction_fields

from .arrays import contiguous, is_dense, memory_of
from .handles import Handle, Pending
from .options import Options
from .sparse import reduce_sparse
from .submit import reduce_group, reduce_into


def start_reduction(name: str, parameter: torch.Tensor, options: Options, fields: Mapping[str, Any]) -> Handle[None]:
    """Starts reducing `parameter.grad`, which is not None; the handle's `wait()` puts the result there.

    Args:
        name: the parameter's name.
        fields: further fields of the request.

    Raises:
        ValueError: the gradient's type cannot be communicated, or it was made with `create_graph=True`.
        NotImplementedError: a sparse gradient, which only Average and Sum can combine.
    """
    full_name = operation_name("allreduce", name)
    if is_dense_on_its_way(parameter, options):
        dense = DenseGradient(name, parameter, options)
        return dense.arriving(reduce_into(dense.memory, dense.memory, full_name, **reduction(options), **fields))
    gradient = gradient_of(name, parameter)
    total = reduce_sparse(Call("allreduce", full_name, fields), gradient, options.op)
    return Handle(total, lambda total: _put_sparse(gradient, total))


def start_together(
    name: str, named: Sequence[tuple[str, torch.Tensor]], options: Options, fields: Mapping[str, Any]
) -> list[Handle[None]]:
    """Starts reducing several dense gradients as a whole; otherwise as `start_reduction`.

    Args:
        name: of the whole.
        named: parameters by name, the same on all ranks.
    """
    gradients = [DenseGradient(name, parameter, options) for name, parameter in named]
    memories = [contiguous(gradient.memory) for gradient in gradients]
    pending = reduce_group(operation_name("allreduce", name), memories, memories, {**reduction(options), **fields})
    return [gradient.arriving(one) for gradient, one in zip(gradients, pending, strict=True)]


def gradient_of(name: str, parameter: torch.Tensor) -> torch.Tensor:
    """The gradient, which is not None.

    Raises:
        ValueError: it was made with `create_graph=True`.
    """
    gradient = parameter.grad
    assert gradient is not None
    if gradient.requires_grad:
        raise ValueError(
            f"the gradient of {name} is part of a graph (create_graph=True) and cannot be reduced in place"
        )
    return gradient


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


class DenseGradient:
    """A gradient that travels as a dense tensor, compressed.

    Attributes:
        memory: what is reduced in place, 1-D.
    """

    def __init__(self, name: str, parameter: torch.Tensor, options: Options) -> None:
        self._gradient = gradient = gradient_of(name, parameter)
        self._compression = options.compression
        dense = gradient.to_dense() if gradient.is_sparse else gradient
        compressed, self._ctx = options.compression.compress(dense)
        self._work = laid_out_like(parameter, compressed)
        self.memory = memory_of(self._work)

    def arriving(self, pending: Pending) -> Handle[None]:
        """A handle that waits for the reduction and puts its result into the gradient."""
        return Handle(pending, self._put)

    def _put(self, _: object) -> None:
        gradient, result = self._gradient, self._compression.decompress(self._work, self._ctx)
        if gradient.is_sparse:
            _put_sparse(gradient, result.to_sparse(gradient.sparse_dim()))
        elif result is not gradient:
            gradient.copy_(result)


def reduction(options: Options) -> dict[str, Any]:
    """How gradients are reduced, as fields of requests."""
    return reduction_fields(options.op, options.gradient_predivide_factor)


def _put_sparse(gradient: torch.Tensor, total: torch.Tensor) -> None:
    gradient.zero_().add_(total)
