"""Allreduce of one tensor and of several, synchronous, asynchronous and in place (Horovod's names, arguments and defaults).

Operations are told apart by name: every rank submits the same names, in any order; tensors of one name have the same type
and shape everywhere, or all ranks get an error. An operation without a name gets a number, so that unnamed operations must
be submitted in the same order. `..._async` functions return a handle for `poll` and `synchronize`; until then the tensors
belong to the operation. `..._` functions work in place. The tensors of a `grouped_...` function are reduced together, all
or none. Gradients flow through the synchronous functions that are not in place.

All raise NotInitializedError before `init()`; ValueError for tensors and options that cannot be communicated, and for a
process set that is not registered or that this rank is not in; where they wait, HorovodInternalError when the operation
failed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.calls import Call, make_call, reduce_op

from . import autograd
from .compression import Compression, Compressor
from .handles import Handle
from .submit import group_in_place, group_into_copies, in_place, into_copies


def allreduce_async(
    tensor: torch.Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Handle[torch.Tensor]:
    """Starts reducing a tensor over all ranks; arguments as for `allreduce`. Gradients do not flow through it."""
    call = _call(average, name, op, prescale_factor, postscale_factor, process_set)
    return into_copies(call, [tensor])[0]


def allreduce(
    tensor: torch.Tensor,
    average: bool | None = None,
    name: str | None = None,
    compression: type[Compressor] = Compression.none,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> torch.Tensor:
    """The reduction of a tensor over all ranks. Differentiable: the gradient is reduced in the same way.

    Args:
        tensor: of the same type and shape on every rank; not changed.
        average: deprecated by Horovod: True for op=Average, False for op=Sum.
        name: names the operation.
        compression: what the tensor is turned into on its way.
        op: Average (the default), Sum, Adasum, Min, Max or Product. Only Average and Sum have a gradient.
        prescale_factor, postscale_factor: factors before and after the reduction.
        process_set: the ranks that take part.

    Returns:
        A tensor of the same type and shape.
    """
    call = _call(average, name, op, prescale_factor, postscale_factor, process_set)
    return _compressed(call, [tensor], compression)[0]


def allreduce_async_(
    tensor: torch.Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Handle[torch.Tensor]:
    """Starts reducing a tensor over all ranks in place; arguments as for `allreduce`."""
    call = _call(average, name, op, prescale_factor, postscale_factor, process_set)
    return in_place(call, [tensor])[0]


def allreduce_(
    tensor: torch.Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> torch.Tensor:
    """Reduces a tensor over all ranks in place and returns it; arguments as for `allreduce`."""
    call = _call(average, name, op, prescale_factor, postscale_factor, process_set)
    return in_place(call, [tensor])[0].wait()


def grouped_allreduce_async(
    tensors: Sequence[torch.Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Handle[list[torch.Tensor]]:
    """Starts reducing several tensors together; arguments as for `grouped_allreduce`. Gradients do not flow through it."""
    call = _call(average, name, op, prescale_factor, postscale_factor, process_set, grouped=True)
    return group_into_copies(call, tensors)


def grouped_allreduce(
    tensors: Sequence[torch.Tensor],
    average: bool | None = None,
    name: str | None = None,
    compression: type[Compressor] = Compression.none,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[torch.Tensor]:
    """The reductions of several tensors, carried out together. Differentiable.

    Args:
        tensors: as many on every rank, each of the same type and shape everywhere; not changed.

    The other arguments are those of `allreduce`.

    Returns:
        A tensor of the same type and shape for each.
    """
    call = _call(average, name, op, prescale_factor, postscale_factor, process_set, grouped=True)
    return _compressed(call, tensors, compression)


def grouped_allreduce_async_(
    tensors: Sequence[torch.Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Handle[list[torch.Tensor]]:
    """Starts reducing several tensors together in place; arguments as for `grouped_allreduce`."""
    call = _call(average, name, op, prescale_factor, postscale_factor, process_set, grouped=True)
    return group_in_place(call, tensors)


def grouped_allreduce_(
    tensors: Sequence[torch.Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[torch.Tensor]:
    """Reduces several tensors together in place and returns them; arguments as for `grouped_allreduce`."""
    call = _call(average, name, op, prescale_factor, postscale_factor, process_set, grouped=True)
    return group_in_place(call, tensors).wait()


def _call(
    average: bool | None,
    name: str | None,
    op: int | None,
    prescale: float,
    postscale: float,
    process_set: ProcessSet,
    grouped: bool = False,
) -> Call:
    fields = {"op": reduce_op(op, average, 3), "prescale": prescale, "postscale": postscale}
    return make_call("allreduce", name, process_set, grouped=grouped, **fields)


def _compressed(call: Call, tensors: Sequence[torch.Tensor], compression: type[Compressor]) -> list[torch.Tensor]:
    pairs = [compression.compress(tensor) for tensor in tensors]
    reduced = autograd.allreduce(call, [tensor for tensor, _ in pairs])
    return [compression.decompress(tensor, ctx) for tensor, (_, ctx) in zip(reduced, pairs, strict=True)]
