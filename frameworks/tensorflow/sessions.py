"""Crossings in graphs of tf.compat.v1, where nothing says in which order a session runs independent operations.

A `tf.numpy_function` that waited would keep a thread of the session's pool, and the other ranks' sessions might wait for an
operation that this pool has no thread left to start. A dataset may have threads of its own: so an operation becomes the function
that is mapped over the single element of a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from .arrays import Array

NOTHING = "nothing"
"""Stands for the inputs of an operation without any."""


def cross_beside(
    run: Callable[[Sequence[Any]], Sequence[Array]], tensors: Sequence[Any], types: Sequence[Any], name: str
) -> list[Any]:
    """Results of a blocking function of arrays, as tensors of these types; no thread of the session's is kept waiting.

    Args:
        name: that TensorFlow allows.
    """

    def call(*inputs: Any) -> tuple[Any, ...]:
        given = inputs if tensors else ()
        return tuple(tf.numpy_function(lambda *arrays: run(arrays), given, list(types), name=name))

    elements = tf.data.Dataset.from_tensors(tuple(tensors) or tf.constant(NOTHING)).map(call)
    signature = {"output_types": list(types), "output_shapes": [None] * len(types)}
    threaded = tf.raw_ops.PrivateThreadPoolDataset(
        input_dataset=tf.data.experimental.to_variant(elements), num_threads=1, **signature
    )
    return list(tf.raw_ops.DatasetToSingleElement(dataset=threaded, **signature, name=f"{name}_result"))
