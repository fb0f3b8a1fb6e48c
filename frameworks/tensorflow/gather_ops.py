"""Allgather, broadcast and alltoall (Horovod's names, arguments and defaults). See reduce_ops.py for what all share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.basics import ProcessSet, global_process_set

from . import differentiable
from .api import public
from .submit import call_of


@public
def allgather(
    tensor: Any,
    name: str | None = None,
    ignore_name_scope: bool = False,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """All ranks' tensors, joined along the first dimension in the order of ranks.

    Differentiable: the gradient is averaged over the ranks, and each gets its part.

    Args:
        tensor: at least 1-D; first dimensions may differ between ranks, the others may not.
        name: names the operation.
        ignore_name_scope: in a graph, leave TensorFlow's name scopes out of the name.
        process_set: the ranks that take part.
    """
    tensor = tf.convert_to_tensor(tensor)
    call = call_of("allgather", [tensor], name, process_set, ignore_name_scope=ignore_name_scope)
    return differentiable.allgather(call, [tensor])[0]


@public
def grouped_allgather(
    tensors: Sequence[Any],
    name: str | None = None,
    ignore_name_scope: bool = False,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """What `allgather` gives for each of several tensors, gathered together: all or none. Differentiable.

    Args:
        tensors: as many on every rank.

    The other arguments are those of `allgather`.
    """
    dense = [tf.convert_to_tensor(tensor) for tensor in tensors]
    call = call_of("allgather", dense, name, process_set, grouped=True, ignore_name_scope=ignore_name_scope)
    return differentiable.allgather(call, dense)


@public
def broadcast(
    tensor: Any,
    root_rank: int,
    name: str | None = None,
    ignore_name_scope: bool = False,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """The root's tensor, on every rank. Differentiable: the root's gradient is the average, others' are zero.

    Args:
        tensor: of the same type and shape on every rank; not changed.
        root_rank: whose tensor; a global rank, in every process set.
        name: names the operation.
        ignore_name_scope: in a graph, leave TensorFlow's name scopes out of the name.
        process_set: the ranks that take part.
    """
    tensor = tf.convert_to_tensor(tensor)
    call = call_of("broadcast", [tensor], name, process_set, ignore_name_scope=ignore_name_scope, root_rank=root_rank)
    return differentiable.broadcast(call, [tensor])[0]


@public
def alltoall(
    tensor: Any,
    splits: Any = None,
    name: str | None = None,
    ignore_name_scope: bool = False,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Sends a slice of a tensor to every rank, and joins the slices received, in the order of ranks.

    Differentiable: the gradients of the slices go back to where the slices came from.

    Args:
        tensor: at least 1-D; first dimensions may differ between ranks, the others may not.
        splits: integers, a tensor or not: how many rows go to each rank, in their order. Their sum may be less than the rows
            there are: the rest is not sent. None: equal slices, so the rows must be a multiple of the number of ranks.
        name: names the operation.
        ignore_name_scope: in a graph, leave TensorFlow's name scopes out of the name.
        process_set: the ranks that take part.

    Returns:
        Without splits, a tensor. With splits a pair: the tensor, and the number of rows received from each rank, int32.

    Raises:
        ValueError: splits that are not one number a rank, or exceed the rows; no splits and rows that cannot be divided.
    """
    tensor = tf.convert_to_tensor(tensor)
    call = call_of("alltoall", [tensor], name, process_set, ignore_name_scope=ignore_name_scope)
    output, received = differentiable.alltoall(call, tensor, _splits(splits))
    return output if splits is None else (output, received)


def _splits(splits: Any) -> Any:
    """A vector of integers; empty for equal slices.

    Raises:
        ValueError: another shape or type.
    """
    if splits is None or (isinstance(splits, (list, tuple)) and not splits):
        return tf.constant([], tf.int32)
    splits = tf.convert_to_tensor(splits)
    if splits.shape.rank not in (None, 1):
        raise ValueError(f"alltoall expects a 1D splits tensor, not one of shape {splits.shape}")
    if not splits.dtype.is_integer:
        raise ValueError(f"alltoall expects splits to contain integer elements, not {splits.dtype.name}")
    return splits
