"""Calls on tensors: one crossing for all tensors of an operation, and one for all operations of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.basics import ProcessSet
from hvd_gossip.calls import Call, make_call
from hvd_gossip.collectives import Request, Result
from hvd_gossip.handles import wait_for_all

from . import names
from .arrays import Array, aligned_like, check_type

LIKE_INPUTS = ("allreduce", "broadcast")
"""Kinds whose results are like their inputs."""


def call_of(
    kind: str,
    tensors: Sequence[Any],
    name: str | None,
    process_set: ProcessSet,
    *,
    grouped: bool = False,
    ignore_name_scope: bool = False,
    **fields: Any,
) -> Call:
    """The call of an operation by a user, named as Horovod names it.

    Raises:
        NotInitializedError: before `init()`. ValueError: types that cannot be communicated; this rank is not in the process
            set, or it is not registered.
    """
    title = f"{'Grouped' if grouped else ''}{kind.capitalize()}"
    full = names.operation(title, tensors[0] if tensors else None, name, ignore_name_scope)
    call = make_call(kind, full, process_set, grouped=grouped, **fields)
    for tensor in tensors:
        check_type(tensor)
    return call


def carry_out(call: Call, arrays: Sequence[Array]) -> list[Result]:
    """Submits one request an array, and waits for all."""
    return carry_out_all([(call, arrays)])[0]


def carry_out_all(parts: Sequence[tuple[Call, Sequence[Array]]]) -> list[list[Result]]:
    """Carries several calls out side by side. All requests are made, and so checked, before the first is submitted.

    Raises:
        HorovodInternalError: an operation failed; nothing is under way any more, except after a time-out.
    """
    now = runtime.current()
    requests = [_request(array, fields) for call, arrays in parts for array, fields in _with_fields(call, arrays)]
    results = iter(wait_for_all([now.submit(request) for request in requests]))
    return [[next(results) for _ in arrays] for _, arrays in parts]


def like(tensor: Any) -> tf.TensorSpec:
    """Shape and type of a tensor."""
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def with_other_rows(tensor: Any) -> tf.TensorSpec:
    """Shape and type of a tensor that has another number of rows."""
    shape = tensor.shape
    rest = shape[1:] if shape.rank else None
    return tf.TensorSpec(None if rest is None else tf.TensorShape([None]).concatenate(rest), tensor.dtype)


def output_of(result: Result) -> Array:
    """The array that the operation gave."""
    assert result.output is not None
    array: Array = result.output
    return array


def _with_fields(call: Call, arrays: Sequence[Array]) -> zip[tuple[Array, dict[str, Any]]]:
    return zip(arrays, call.each(len(arrays)), strict=True)


def _request(array: Array, fields: dict[str, Any]) -> Request:
    output = aligned_like(array) if fields["kind"] in LIKE_INPUTS else None
    return Request(array=array, output=output, **fields)
