"""Allreduce and reducescatter, of one tensor and of several (Horovod's names, arguments and defaults).

Eagerly, inside `tf.function` and in graphs of tf.compat.v1. Operations are told apart by name: every rank submits the same
names; tensors of one name have the same type and shape everywhere, or all ranks get an error. Eagerly an operation without a
name gets a number, so that unnamed operations must be called in the same order; in a graph it is named after its tensor. The
tensors of a `grouped_...` function are carried out together, all or none. Gradients flow through all of them.

All raise NotInitializedError before `init()`; ValueError for tensors and options that cannot be communicated, and for a
process set that is not registered or that this rank is not in; NotImplementedError inside a function that XLA compiles;
HorovodInternalError when the operation failed, which a graph hands on as a tf.errors.OpError.

Arguments in common:
    device_dense, device_sparse: as in Horovod; data cross the boundary of the graph on the host, so that they only place what
        compression computes.
    compression: what tensors are turned into on their way.
    process_set: the ranks that take part.
    name: names the operation.
    ignore_name_scope: in a graph, leave TensorFlow's name scopes out of the name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.calls import Call, reduce_op
from hvd_gossip.collectives import Average, ReduceOp

from . import differentiable
from .api import public
from .compression import Compression, Compressor
from .names import in_graph
from .parts import SparsePart, is_sparse, reduce_parts
from .submit import call_of


@public
def allreduce(
    tensor: Any,
    average: bool | None = None,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
    ignore_name_scope: bool = False,
) -> Any:
    """The reduction of a tensor over all ranks. Differentiable: the gradient is reduced in the same way.

    Args:
        tensor: tf.Tensor or tf.Variable of the same type and shape on every rank; not changed. Of a tf.IndexedSlices all
            ranks' rows are gathered (divided by the number of ranks for Average); gradients do not flow through that.
        average: deprecated by Horovod: True for op=Average, False for op=Sum.
        op: Average (the default), Sum, Adasum, Min, Max or Product. Only Average and Sum have a gradient.
        prescale_factor, postscale_factor: factors before and after the reduction.

    For the other arguments and the errors see this module.

    Returns:
        A tensor, or tf.IndexedSlices, of the same type and shape.

    Raises:
        NotImplementedError: a tf.IndexedSlices with another op than Average and Sum.
    """
    options: dict[str, Any] = {
        "op": reduce_op(op, average, 3),
        "prescale": prescale_factor,
        "postscale": postscale_factor,
    }
    if is_sparse(tensor):
        call = call_of("allreduce", [tensor.values], name, process_set, ignore_name_scope=ignore_name_scope, **options)
        with tf.device(device_sparse):
            return reduce_parts([SparsePart(tensor, call)], in_graph(call.name))[0][0]
    tensor = tf.convert_to_tensor(tensor)
    call = call_of("allreduce", [tensor], name, process_set, ignore_name_scope=ignore_name_scope, **options)
    return _compressed(differentiable.allreduce, call, [tensor], compression, device_dense)[0]


@public
def grouped_allreduce(
    tensors: Sequence[Any],
    average: bool | None = None,
    device_dense: str = "",
    device_sparse: str = "",
    compression: type[Compressor] = Compression.none,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
    ignore_name_scope: bool = False,
    name: str | None = None,
) -> list[Any]:
    """The reductions of several tensors, carried out together: all or none. Differentiable.

    Args:
        tensors: as many on every rank, each of the same type and shape everywhere; not changed. tf.IndexedSlices among them
            are made dense.

    The other arguments are those of `allreduce`.

    Returns:
        A tensor of the same type and shape for each.
    """
    options: dict[str, Any] = {
        "op": reduce_op(op, average, 3),
        "prescale": prescale_factor,
        "postscale": postscale_factor,
    }
    dense = [tf.convert_to_tensor(tensor) for tensor in tensors]
    call = call_of("allreduce", dense, name, process_set, grouped=True, ignore_name_scope=ignore_name_scope, **options)
    return _compressed(differentiable.allreduce, call, dense, compression, device_dense)


@public
def reducescatter(
    tensor: Any,
    device_dense: str = "",
    compression: type[Compressor] = Compression.none,
    op: int = Average,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    ignore_name_scope: bool = False,
) -> Any:
    """This rank's rows of the reduction of a tensor over all ranks.

    Differentiable: the gradient joins those of all ranks' rows, times their number for op=Sum (Horovod's rule).

    Args:
        tensor: at least 1-D, of the same type and shape on every rank; not changed.
        op: Average or Sum.
        prescale_factor, postscale_factor: factors before and after the reduction.

    For the other arguments and the errors see this module.

    Returns:
        A tensor of the same type, with the rows divided among the ranks; the first (rows mod ranks) get one more.
    """
    options: dict[str, Any] = {"op": ReduceOp(op), "prescale": prescale_factor, "postscale": postscale_factor}
    tensor = tf.convert_to_tensor(tensor)
    call = call_of("reducescatter", [tensor], name, process_set, ignore_name_scope=ignore_name_scope, **options)
    return _compressed(differentiable.reducescatter, call, [tensor], compression, device_dense)[0]


@public
def grouped_reducescatter(
    tensors: Sequence[Any],
    device_dense: str = "",
    compression: type[Compressor] = Compression.none,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    name: str | None = None,
    ignore_name_scope: bool = False,
) -> list[Any]:
    """What `reducescatter` gives for each of several tensors, carried out together: all or none. Differentiable.

    Args:
        tensors: as many on every rank.

    The other arguments are those of `reducescatter`.
    """
    options: dict[str, Any] = {"op": ReduceOp(op), "prescale": prescale_factor, "postscale": postscale_factor}
    dense = [tf.convert_to_tensor(tensor) for tensor in tensors]
    call = call_of(
        "reducescatter", dense, name, process_set, grouped=True, ignore_name_scope=ignore_name_scope, **options
    )
    return _compressed(differentiable.reducescatter, call, dense, compression, device_dense)


def _compressed(
    operation: Any, call: Call, tensors: Sequence[Any], compression: type[Compressor], device: str
) -> list[Any]:
    with tf.device(device):
        pairs = [compression.compress(tensor) for tensor in tensors]
        outputs = operation(call, [tensor for tensor, _ in pairs])
        return [compression.decompress(output, context) for output, (_, context) in zip(outputs, pairs, strict=True)]
