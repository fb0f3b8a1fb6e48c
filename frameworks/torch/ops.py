"""Collective operations on tensors: allreduce, allgather, broadcast, barrier (Horovod's names, arguments and defaults).

Operations are told apart by name: every rank submits the same names, in any order; tensors of one name have the same type
and shape everywhere, or all ranks get an error. An operation without a name gets a number, so that unnamed operations must
be submitted in the same order. `..._async` functions return a handle for `poll` and `synchronize`; until then the tensors
belong to the operation. `..._` functions work in place.

All raise NotInitializedError before `init()`, ValueError for tensors and options that cannot be communicated, and, where they
wait, HorovodInternalError when the operation failed.
"""

from __future__ import annotations

import warnings

import torch

from hvd_gossip import runtime
from hvd_gossip.basics import ProcessSet, global_process_set, operation_name, require_global
from hvd_gossip.collectives import Average, ReduceOp, Request, Sum

from . import autograd
from .arrays import contiguous, copy_for_result
from .compression import Compression, Compressor
from .handles import Handle
from .submit import broadcast_into, gather, reduce_into

Adasum = 2
"""Horovod's adaptive summation: a name so far; operations that are given it raise NotImplementedError."""


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
    require_global(process_set)
    output = copy_for_result(contiguous(tensor))
    return reduce_into(
        output, output, operation_name("allreduce", name), _op(op, average), prescale_factor, postscale_factor
    )


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
    require_global(process_set)
    work = contiguous(tensor)
    handle = reduce_into(
        work, work, operation_name("allreduce", name), _op(op, average), prescale_factor, postscale_factor
    )
    return _in_place(handle, tensor, work)


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
        op: Average (the default), Sum, Min, Max or Product.
        prescale_factor, postscale_factor: factors before and after the reduction.
        process_set: only the global one.

    Returns:
        A tensor of the same type and shape.
    """
    require_global(process_set)
    op, name = _op(op, average), operation_name("allreduce", name)
    compressed, ctx = compression.compress(tensor)
    reduced = autograd.allreduce(compressed, name, op, prescale_factor, postscale_factor)
    return compression.decompress(reduced, ctx)


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
    return allreduce_async_(tensor, average, name, op, prescale_factor, postscale_factor, process_set).wait()


def allgather_async(
    tensor: torch.Tensor, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Handle[torch.Tensor]:
    """Starts joining all ranks' tensors; arguments as for `allgather`. Gradients do not flow through it."""
    require_global(process_set)
    return Handle(gather(contiguous(tensor), operation_name("allgather", name)), lambda gathered: gathered.output)


def allgather(
    tensor: torch.Tensor, name: str | None = None, process_set: ProcessSet = global_process_set
) -> torch.Tensor:
    """All ranks' tensors, joined along the first dimension in the order of ranks.

    Differentiable: the gradient is averaged over the ranks, and each gets its part.

    Args:
        tensor: at least 1-D; first dimensions may differ between ranks, the others may not.
        name: names the operation.
        process_set: only the global one.
    """
    require_global(process_set)
    return autograd.allgather(tensor, operation_name("allgather", name))


def broadcast_async(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Handle[torch.Tensor]:
    """Starts giving every rank the root's tensor; arguments as for `broadcast`. Gradients do not flow through it."""
    require_global(process_set)
    source = contiguous(tensor)
    return broadcast_into(source, copy_for_result(source), root_rank, operation_name("broadcast", name))


def broadcast_async_(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Handle[torch.Tensor]:
    """Starts overwriting the tensor with the root's; arguments as for `broadcast`."""
    require_global(process_set)
    work = contiguous(tensor)
    return _in_place(broadcast_into(work, work, root_rank, operation_name("broadcast", name)), tensor, work)


def broadcast(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> torch.Tensor:
    """The root's tensor, on every rank. Differentiable: the root's gradient is the average, others' are zero.

    Args:
        tensor: of the same type and shape on every rank; not changed.
        root_rank: whose tensor.
        name: names the operation.
        process_set: only the global one.
    """
    require_global(process_set)
    return autograd.broadcast(tensor, root_rank, operation_name("broadcast", name))


def broadcast_(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> torch.Tensor:
    """Overwrites the tensor with the root's and returns it; arguments as for `broadcast`."""
    return broadcast_async_(tensor, root_rank, name, process_set).wait()


def barrier(process_set: ProcessSet = global_process_set) -> None:
    """Returns when every rank has called it."""
    require_global(process_set)
    runtime.current().submit(Request(name=operation_name("barrier", None), kind="barrier")).wait()


def _in_place(handle: Handle[torch.Tensor], tensor: torch.Tensor, work: torch.Tensor) -> Handle[torch.Tensor]:
    """A handle whose output is the user's tensor, with the result in it."""

    def finish(_: object) -> torch.Tensor:
        if work is not tensor:
            tensor.detach().copy_(work)
        elif not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)  # so that autograd sees that saved values are gone
        return tensor

    return Handle(handle, finish)


def _op(op: int | None, average: bool | None) -> ReduceOp:
    if op is not None and average is not None:
        raise ValueError("The op parameter supersedes average. Please provide only one of them.")
    if average is not None:
        warnings.warn(
            "Parameter `average` has been replaced with `op` and will be removed in v0.21.0",
            DeprecationWarning,
            stacklevel=3,
        )
        return Average if average else Sum
    return check_op(Average if op is None else op)


def check_op(op: int) -> ReduceOp:
    """The reduction operation of a number.

    Raises:
        NotImplementedError: Adasum. ValueError: no such operation.
    """
    if op == Adasum:
        raise NotImplementedError("op=Adasum is not built yet: use Average, Sum, Min, Max or Product")
    return ReduceOp(op)
