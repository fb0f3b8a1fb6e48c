"""Sums of sparse tensors: every rank's indices and values are gathered, and rows that several ranks have are added up."""

from __future__ import annotations

import math

import torch

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.calls import Call, make_call
from hvd_gossip.collectives import Average, ReduceOp, Sum

from .arrays import check_tensor
from .handles import CallableHandle
from .submit import Received, into_new


def sparse_allreduce_async(
    tensor: torch.Tensor, name: str, op: int, process_set: ProcessSet = global_process_set
) -> CallableHandle[torch.Tensor]:
    """Starts reducing a sparse tensor over all ranks (Horovod's function).

    What a rank sends and receives grows with the non-zero rows, each of which a rank sends once; the result holds every
    row that some rank has. Gradients do not flow through it.

    Args:
        tensor: of layout torch.sparse_coo; of the same type and shape on every rank.
        name: names the operation.
        op: Average or Sum.
        process_set: the ranks that take part.

    Returns:
        A handle for `poll` and `synchronize`. As Horovod's it may also be called: `handle()` gives the output, a coalesced
        sparse tensor.

    Raises:
        ValueError: the tensor is not sparse, or its values cannot be communicated. NotImplementedError: another op.
    """
    return reduce_sparse(make_call("allreduce", name, process_set), tensor, op)


def reduce_sparse(call: Call, tensor: torch.Tensor, op: int) -> CallableHandle[torch.Tensor]:
    """The same, under the full name of a call.

    That is the name of a dense allreduce, so that ranks that disagree on whether a tensor is sparse get an error. Indices
    and values travel as one array of bytes, a row an entry: there are no two operations of which one could fail.
    """
    if ReduceOp(op) not in (Average, Sum):
        raise NotImplementedError(
            f"{call.name}: sparse tensors can only be averaged or summed; for other operations make them dense, with "
            "to_dense() or DistributedOptimizer(sparse_as_dense=True)"
        )
    if tensor.layout != torch.sparse_coo:
        raise ValueError(f"{call.name}: a tensor of layout torch.sparse_coo is needed, not one of {tensor.layout}")
    own = tensor.detach().coalesce()
    check_tensor(own.values())
    gathering = Call("allgather", call.name, call.fields)
    (handle,) = into_new(gathering, [_pack(own)])
    return CallableHandle(handle, lambda received: _sum(received, own, op))


def _pack(tensor: torch.Tensor) -> torch.Tensor:
    """A coalesced tensor's entries as bytes, of shape (entries, bytes of its indices and values)."""
    values = tensor.values()
    return torch.cat(
        [_bytes(tensor.indices().t()), _bytes(values.reshape(len(values), math.prod(values.shape[1:])))], dim=1
    )


def _bytes(matrix: torch.Tensor) -> torch.Tensor:
    rows, columns = matrix.shape
    plain = matrix.new_empty(rows, columns).copy_(matrix)  # contiguous() leaves dimensions of length 1 their strides
    return plain.reshape(-1).view(torch.uint8).reshape(rows, columns * matrix.element_size())


def _sum(received: Received, like: torch.Tensor, op: int) -> torch.Tensor:
    """The sum, or the average, of all ranks' entries."""
    rows, split = len(received.output), like.sparse_dim() * torch.int64.itemsize
    indices = received.output[:, :split].reshape(-1).view(torch.int64).reshape(rows, like.sparse_dim()).t()
    values = received.output[:, split:].reshape(-1).view(like.dtype).reshape(rows, *like.values().shape[1:])
    total = torch.sparse_coo_tensor(indices, values, like.shape, check_invariants=True).coalesce()
    if op == Sum:
        return total
    ranks = len(received.ranks)
    mean = total.values() / ranks if like.is_floating_point() else total.values() // ranks
    return torch.sparse_coo_tensor(total.indices(), mean, like.shape, is_coalesced=True, check_invariants=False)
