"""Collective operations with their gradients (Horovod's rules).

The backward pass communicates under the forward operation's name with ".grad" after it; like forward, it must run on all
ranks of the process set. Operations that have a grouped form are written for several tensors, which cross together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.calls import Call, averaging, backward_of, check_linear
from hvd_gossip.collectives import Sum

from .arrays import Array
from .crossing import cross
from .names import in_graph
from .submit import Outcome, carry_out, like, with_other_rows

Tensors = Sequence[Any]


def allreduce(call: Call, tensors: Tensors) -> list[Any]:
    """y = reduce_j(x_j); the gradient of x is the same reduction of the gradients of y."""

    def run(arrays: list[Array]) -> list[Array]:
        return [result.output for result in carry_out(call, arrays)]

    def reduce(*inputs: Any) -> tuple[list[Any], Any]:
        outputs = cross(run, inputs, [like(tensor) for tensor in inputs], in_graph(call.name))
        return outputs, _of_floating(outputs, lambda upstream: allreduce(backward_of(call), upstream))

    return _apply(reduce, tensors)


def allgather(call: Call, tensors: Tensors) -> list[Any]:
    """y = concatenation of all x_j; the gradient of x is this rank's part of the average of the gradients of y."""

    def run(arrays: list[Array]) -> list[Array]:
        results = carry_out(call, arrays)
        return [result.output for result in results] + [_own_part(result) for result in results]

    def gather(*inputs: Any) -> tuple[list[Any], Any]:
        specs = [with_other_rows(tensor) for tensor in inputs] + [tf.TensorSpec([2], tf.int64) for _ in inputs]
        results = cross(run, inputs, specs, in_graph(call.name))
        outputs, parts = results[: len(inputs)], results[len(inputs) :]
        floating = [part for part, output in zip(parts, outputs, strict=True) if _is_differentiable(output)]

        def gradient(upstream: Tensors) -> list[Any]:
            averages = allreduce(averaging(call), upstream)
            return [average[part[0] : part[0] + part[1]] for average, part in zip(averages, floating, strict=True)]

        return outputs, _of_floating(outputs, gradient)

    return _apply(gather, tensors)


def broadcast(call: Call, tensors: Tensors) -> list[Any]:
    """y = x_root; the gradient of x is the average of the gradients of y on the root, zero elsewhere."""
    is_root = runtime.current().world.rank == call.fields["root_rank"]

    def run(arrays: list[Array]) -> list[Array]:
        return [result.output for result in carry_out(call, arrays)]

    def spread(*inputs: Any) -> tuple[list[Any], Any]:
        outputs = cross(run, inputs, [like(tensor) for tensor in inputs], in_graph(call.name))

        def gradient(upstream: Tensors) -> list[Any]:
            averages = allreduce(averaging(call), upstream)
            if is_root:
                return averages
            with tf.control_dependencies(
                averages
            ):  # else a session leaves the allreduce out, and the root waits for ever
                return [tf.identity(tf.zeros_like(average)) for average in averages]

        return outputs, _of_floating(outputs, gradient)

    return _apply(spread, tensors)


def alltoall(call: Call, tensor: Any, splits: Any) -> tuple[Any, Any]:
    """y = all parts x_j for this rank, joined; the gradients of the parts go back to where the parts came from.

    Args:
        splits: integer tensor: rows for each rank; without elements for as many to each.

    Returns:
        y, and the number of rows that came from each rank, int32.
    """

    def run(arrays: list[Array]) -> list[Array]:
        array, rows = arrays[0], tuple(int(count) for count in arrays[1])
        if rows and array.ndim and sum(rows) < len(array) and min(rows) >= 0:
            array = array[: sum(rows)]
        (result,) = carry_out(Call(call.kind, call.name, {**call.fields, "splits": rows}), [array])
        return [result.output, np.array(result.sizes, np.int32)]

    def exchange(own: Any) -> tuple[tuple[Any, Any], Any]:
        specs = [with_other_rows(own), tf.TensorSpec([None], tf.int32)]
        output, received = cross(run, [own, splits], specs, in_graph(call.name))

        def gradient(upstream: Any, _: Any = None) -> Any:
            back, _ = alltoall(call.backward("alltoall"), upstream, received)
            unsent = tf.shape(own)[0] - tf.shape(back)[0]  # rows that the splits leave out
            return tf.pad(back, [[0, unsent]] + [[0, 0]] * (own.shape.rank - 1))

        return (output, received), gradient

    output, received = tf.custom_gradient(exchange)(tensor)
    return output, received


def reducescatter(call: Call, tensors: Tensors) -> list[Any]:
    """y = this rank's rows of reduce_j(x_j); the gradient of x is all ranks' gradients of y, joined; times their number
    for op=Sum."""
    scale = call.fields["prescale"] * call.fields["postscale"]

    def run(arrays: list[Array]) -> list[Array]:
        results = carry_out(call, arrays)
        return [result.output for result in results] + [np.array(len(results[0].ranks), np.int64)]

    def scatter(*inputs: Any) -> tuple[list[Any], Any]:
        specs = [*(with_other_rows(tensor) for tensor in inputs), tf.TensorSpec([], tf.int64)]
        *outputs, ranks = cross(run, inputs, specs, in_graph(call.name))

        def gradient(upstream: Tensors) -> list[Any]:
            check_linear(call)
            factor = tf.cast(ranks, tf.float64) * scale if call.fields["op"] == Sum else scale
            scaled = [one * tf.cast(factor, one.dtype) for one in upstream]
            return allgather(call.backward("allgather"), scaled)

        return outputs, _of_floating(outputs, gradient)

    return _apply(scatter, tensors)


def _apply(function: Callable[..., tuple[list[Any], Any]], tensors: Tensors) -> list[Any]:
    """The outputs of a differentiable function of several tensors."""
    if not tensors:
        return []
    outputs = tf.custom_gradient(function)(*tensors)
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _of_floating(outputs: Tensors, gradient: Callable[[Tensors], list[Any]]) -> Callable[..., list[Any]]:
    """The gradients of all inputs, of which only floating ones have any."""

    def of_all(*upstream: Any) -> list[Any]:
        wanted = [_is_differentiable(output) for output in outputs]
        floating = [tf.convert_to_tensor(one) for one, want in zip(upstream, wanted, strict=True) if want]
        gradients = iter(gradient(floating))
        return [next(gradients) if want else None for want in wanted]

    return of_all


def _is_differentiable(tensor: Any) -> bool:
    return bool(tensor.dtype.is_floating or tensor.dtype.is_complex)


def _own_part(result: Outcome) -> Array:
    """Where this rank's rows begin in the output, and how many they are."""
    position = result.ranks.index(runtime.current().world.rank)
    return np.array([sum(result.sizes[:position]), result.sizes[position]], np.int64)
