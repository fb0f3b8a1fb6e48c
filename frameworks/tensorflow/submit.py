"""Calls on tensors: one crossing for all tensors of an operation, and one for all operations of a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.basics import ProcessSet
from hvd_gossip.calls import Call, make_call
from hvd_gossip.collectives import Request, Result
from hvd_gossip.collectives.packing import Pair, reduce_together
from hvd_gossip.handles import Waitable, wait_for_all

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


class Outcome(NamedTuple):
    """What an operation gave for one array: see Result, for the last two."""

    output: Array
    sizes: tuple[int, ...]
    ranks: tuple[int, ...]


def carry_out(call: Call, arrays: Sequence[Array]) -> list[Outcome]:
    """Submits a call, and waits for it."""
    return carry_out_all([(call, arrays)])[0]


def carry_out_all(parts: Sequence[tuple[Call, Sequence[Array]]]) -> list[list[Outcome]]:
    """Carries several calls out side by side.

    Raises:
        HorovodInternalError: an operation failed; nothing is under way any more, except after a time-out.
    """
    outputs = [[_output_for(call, array) for array in arrays] for call, arrays in parts]
    started = [_start(*part, into) for part, into in zip(parts, outputs, strict=True)]
    results = iter(wait_for_all(pending for handles in started for pending in handles))
    return [[_outcome(next(results), output) for output in into] for into in outputs]


def like(tensor: Any) -> tf.TensorSpec:
    """Shape and type of a tensor."""
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def with_other_rows(tensor: Any) -> tf.TensorSpec:
    """Shape and type of a tensor that has another number of rows."""
    shape = tensor.shape
    rest = shape[1:] if shape.rank else None
    return tf.TensorSpec(None if rest is None else tf.TensorShape([None]).concatenate(rest), tensor.dtype)


def _start(call: Call, arrays: Sequence[Array], outputs: Sequence[Array | None]) -> list[Waitable[Result]]:
    """Submits one request an array, or as many as packing makes of them. All are made, and so checked, before the first is."""
    submit = runtime.current().submit
    if call.grouped and call.kind == "allreduce" and arrays:
        pairs = [Pair(*pair) for pair in zip(arrays, outputs, strict=True)]
        return list(reduce_together(submit, call.name, pairs, call.fields))
    each = zip(arrays, outputs, call.each(len(arrays)), strict=True)
    requests = [Request(array=array, output=output, **fields) for array, output, fields in each]
    return [submit(request) for request in requests]


def _output_for(call: Call, array: Array) -> Array | None:
    return aligned_like(array) if call.kind in LIKE_INPUTS else None


def _outcome(result: Result, output: Array | None) -> Outcome:
    given = result.output if output is None else output
    assert given is not None  # operations on arrays give arrays
    return Outcome(given, result.sizes, result.ranks)
