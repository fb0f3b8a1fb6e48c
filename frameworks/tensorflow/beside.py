"""An operation that waits for other ranks, in a graph, without keeping one of TensorFlow's threads.

TensorFlow runs what does not depend on each other in any order, on a pool of threads. A `tf.numpy_function` that waited would
keep a thread, and the other ranks might wait for an operation that this pool has no thread left to start. A dataset has a
thread of its own: so an operation becomes the function that is mapped over the single element of a dataset.
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
    """Results of a blocking function of arrays, as tensors of these types; no thread of TensorFlow's pool waits.

    Args:
        name: that TensorFlow allows.
    """

    inputs = [tf.convert_to_tensor(tensor) for tensor in tensors] or [tf.constant(NOTHING)]

    def call(*given: Any) -> Any:
        return tf.numpy_function(lambda *arrays: run(arrays), given if tensors else (), list(types), name=name)

    signature = [tf.TensorSpec(one.shape, one.dtype) for one in inputs]
    function = tf.function(call, autograph=False).get_concrete_function(*signature)
    results = {"output_types": list(types), "output_shapes": [None] * len(types)}
    mapped = tf.raw_ops.MapDataset(
        input_dataset=tf.raw_ops.TensorDataset(components=inputs, output_shapes=[one.shape for one in inputs]),
        other_arguments=[],
        f=function,
        use_inter_op_parallelism=False,  # on the thread of the dataset, not TensorFlow's
        **results,
    )
    return list(tf.raw_ops.DatasetToSingleElement(dataset=mapped, **results, name=name))


def cross_in_order(
    run: Callable[[Sequence[Any]], Sequence[Array]], tensors: Sequence[Any], types: Sequence[Any], name: str
) -> list[Any]:
    """As `cross_beside`, in the graph of a function: after all such operations before it in the program, and never left out.

    TensorFlow keeps stateful operations in their order; reading the clock is one, before and after.
    """
    with tf.control_dependencies([tf.timestamp()]):
        results = cross_beside(run, tensors, types, name)
    with tf.control_dependencies(results):
        tf.timestamp()
    return results
