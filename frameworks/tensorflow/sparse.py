"""`tf.IndexedSlices`: every rank's rows with their indices, gathered; rows that several ranks have stay apart (Horovod's).

Indices and values travel as one array of bytes, a row an entry, under the name of the dense allreduce: there are no two
operations of which one could fail, and ranks that disagree on whether a gradient is sparse get an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from hvd_gossip.calls import Call
from hvd_gossip.collectives import Adasum, Average, Sum

from .arrays import Array, check_type
from .submit import Outcome


def check_sparse(name: str, slices: Any, op: int) -> None:
    """Raises NotImplementedError if the reduction does not exist for rows; ValueError for types that cannot be sent."""
    if op == Adasum:
        raise NotImplementedError(
            f"{name}: the Adasum reduction does not support sparse tensors; pass sparse_as_dense=True instead"
        )
    if op not in (Average, Sum):
        raise NotImplementedError(f"{name}: only Sum and Average are supported with tf.IndexedSlices")
    check_type(slices.values)


def gathering(call: Call) -> Call:
    """The call that gathers what this call would reduce."""
    return Call("allgather", call.name, {"process_set": call.fields["process_set"]})


def specs_of(slices: Any) -> list[tf.TensorSpec]:
    """Shapes and types of the indices and values of the result."""
    rows = tf.TensorShape([None])
    shape = slices.values.shape
    values = rows.concatenate(shape[1:]) if shape.rank else None
    return [tf.TensorSpec(rows, slices.indices.dtype), tf.TensorSpec(values, slices.values.dtype)]


def pack(indices: Array, values: Array) -> Array:
    """Rows as bytes: (entries, bytes of an index and its values)."""
    entries = len(indices)
    # A view as bytes knows no row length where there are no rows.
    width = values.dtype.itemsize * int(np.prod(values.shape[1:]))
    packed = np.empty((entries, indices.dtype.itemsize + width), np.uint8)
    packed[:, : indices.dtype.itemsize] = _bytes(indices, entries, indices.dtype.itemsize)
    packed[:, indices.dtype.itemsize :] = _bytes(values, entries, width)
    return packed


def unpack(outcome: Outcome, indices: Array, values: Array, call: Call) -> list[Array]:
    """All ranks' indices and values, scaled as the call says.

    Args:
        indices, values: this rank's; their types and row shapes are the result's.
    """
    packed = outcome.output
    entries, split = len(packed), indices.dtype.itemsize
    every_index = np.ascontiguousarray(packed[:, :split]).reshape(-1).view(indices.dtype)
    every_value = np.ascontiguousarray(packed[:, split:]).reshape(-1).view(values.dtype)
    return [every_index, scaled(every_value.reshape(entries, *values.shape[1:]), call, len(outcome.ranks))]


def scaled(values: Array, call: Call, ranks: int) -> Array:
    """The values times the call's factors, divided by the number of ranks for op=Average; integers are cut downwards."""
    factor = call.fields.get("prescale", 1.0) * call.fields.get("postscale", 1.0)
    divisor = ranks if call.fields["op"] == Average else 1
    if factor == 1.0 and divisor == 1:
        return values
    if values.dtype.kind in "iu":
        whole = values if factor == 1.0 else (values * factor).astype(values.dtype)
        return np.asarray(whole // values.dtype.type(divisor))
    return np.asarray(values * values.dtype.type(factor / divisor))


def _bytes(array: Array, rows: int, width: int) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(rows, width)
