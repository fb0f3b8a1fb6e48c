"""Allgather and broadcast (Horovod's names, arguments and defaults). See reduce_ops.py for what all operations share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.calls import make_call

from . import autograd
from .handles import Handle, together
from .submit import in_place, into_copies, new_outputs


def allgather_async(
    tensor: torch.Tensor, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Handle[torch.Tensor]:
    """Starts joining all ranks' tensors; arguments as for `allgather`. Gradients do not flow through it."""
    return new_outputs(make_call("allgather", name, process_set), [tensor])[0]


def allgather(
    tensor: torch.Tensor, name: str | None = None, process_set: ProcessSet = global_process_set
) -> torch.Tensor:
    """All ranks' tensors, joined along the first dimension in the order of ranks.

    Differentiable: the gradient is averaged over the ranks, and each gets its part.

    Args:
        tensor: at least 1-D; first dimensions may differ between ranks, the others may not.
        name: names the operation.
        process_set: the ranks that take part.
    """
    return autograd.allgather(make_call("allgather", name, process_set), [tensor])[0]


def grouped_allgather_async(
    tensors: Sequence[torch.Tensor], name: str | None = None, process_set: ProcessSet = global_process_set
) -> Handle[list[torch.Tensor]]:
    """Starts joining several tensors; arguments as for `grouped_allgather`. Gradients do not flow through it."""
    return together(new_outputs(make_call("allgather", name, process_set, grouped=True), tensors))


def grouped_allgather(
    tensors: Sequence[torch.Tensor], name: str | None = None, process_set: ProcessSet = global_process_set
) -> list[torch.Tensor]:
    """What `allgather` gives for each of several tensors, gathered together: all or none. Differentiable.

    Args:
        tensors: as many on every rank.
        name: names the operation.
        process_set: the ranks that take part.
    """
    return list(autograd.allgather(make_call("allgather", name, process_set, grouped=True), tensors))


def broadcast_async(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Handle[torch.Tensor]:
    """Starts giving every rank the root's tensor; arguments as for `broadcast`. Gradients do not flow through it."""
    return into_copies(make_call("broadcast", name, process_set, root_rank=root_rank), [tensor])[0]


def broadcast(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> torch.Tensor:
    """The root's tensor, on every rank. Differentiable: the root's gradient is the average, others' are zero.

    Args:
        tensor: of the same type and shape on every rank; not changed.
        root_rank: whose tensor; a global rank, in every process set.
        name: names the operation.
        process_set: the ranks that take part.
    """
    return autograd.broadcast(make_call("broadcast", name, process_set, root_rank=root_rank), tensor)


def broadcast_async_(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Handle[torch.Tensor]:
    """Starts overwriting the tensor with the root's; arguments as for `broadcast`."""
    return in_place(make_call("broadcast", name, process_set, root_rank=root_rank), [tensor])[0]


def broadcast_(
    tensor: torch.Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> torch.Tensor:
    """Overwrites the tensor with the root's and returns it; arguments as for `broadcast`."""
    return in_place(make_call("broadcast", name, process_set, root_rank=root_rank), [tensor])[0].wait()
