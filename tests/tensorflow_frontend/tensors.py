"""Tensors of which every rank knows every rank's, and the three ways of executing operations on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hvd_gossip.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hvd_gossip import runtime

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[..., Any]
FLOATS = (tf.float32, tf.float64, tf.float16, tf.bfloat16)
INTEGERS = (tf.uint8, tf.int8, tf.int16, tf.int32, tf.int64)


def ours(*shape: int, dtype: Any = tf.float32, rank: int | None = None) -> Any:
    """A rank's tensor of small whole numbers: exact in every type, different on every rank."""
    rank = hvd.rank() if rank is None else rank
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    return tf.cast((numbers + rank) % 5, dtype)


def everybodys(*shape: int) -> Array:
    """All ranks' tensors, stacked, float64."""
    return np.stack([ours(*shape, rank=rank).numpy() for rank in range(hvd.size())]).astype(np.float64)


def same(tensor: Any, expected: object, tolerance: float = 0.0, dtype: Any = None) -> None:
    """Asserts shape, values and, if given, the type of a tensor."""
    array, wanted = np.asarray(tensor), np.asarray(expected)
    assert array.shape == wanted.shape, f"{array.shape}, not {wanted.shape}"
    assert dtype is None or tf.as_dtype(array.dtype) == dtype, f"{array.dtype}, not {dtype}"
    np.testing.assert_allclose(array.astype(np.float64), wanted.astype(np.float64), rtol=tolerance, atol=tolerance)


def eagerly(function: Function, *inputs: Any) -> list[Array]:
    """The values of the results, computed eagerly."""
    return [tensor.numpy() for tensor in _flat(function(*map(tf.convert_to_tensor, inputs)))]


def traced(function: Function, *inputs: Any) -> list[Array]:
    """The values of the results of a second call of a `tf.function`."""
    compiled = tf.function(function)
    tensors = [tf.convert_to_tensor(one) for one in inputs]
    compiled(*tensors)
    return [tensor.numpy() for tensor in _flat(compiled(*tensors))]


def in_session(function: Function, *inputs: Any) -> list[Array]:
    """The values of the results in a graph and a session of tf.compat.v1."""
    arrays = [np.asarray(one) for one in inputs]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        placeholders = [tf.compat.v1.placeholder(one.dtype, one.shape) for one in arrays]
        results = _flat(function(*placeholders))
        return list(session.run(results, dict(zip(placeholders, arrays, strict=True))))


MODES: Sequence[Callable[..., list[Array]]] = (eagerly, traced, in_session)


def submitted(function: Function, *arguments: Any) -> list[str]:
    """The names of the operations that a call submits."""
    now: Any = runtime.current()
    plain, seen = now.submit, []

    def note(request: Any) -> Any:
        seen.append(request.name)
        return plain(request)

    now.submit = note
    try:
        function(*arguments)
    finally:
        del now.submit
    return seen


def _flat(results: Any) -> list[Any]:
    return list(tf.nest.flatten(results))
