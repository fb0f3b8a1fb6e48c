"""Checks of gradients in graphs of tf.compat.v1: those of eager execution, for every operation that has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hvd_gossip.tensorflow as hvd
import numpy as np
import tensorflow as tf

from tests.tensorflow_frontend.tensors import in_session, ours, same


def splits() -> list[int]:
    """How many rows go to each rank: all of them unequal."""
    return [rank + 1 for rank in range(hvd.size())]


def operations() -> dict[str, Callable[[Any], Any]]:
    """Operations of a tensor of `rows()` rows, by name."""
    return {
        "allreduce": hvd.allreduce,
        "sum": lambda x: hvd.allreduce(x, op=hvd.Sum, prescale_factor=0.5),
        "grouped_allreduce": lambda x: hvd.grouped_allreduce([x, 2.0 * x]),
        "allgather": hvd.allgather,
        "grouped_allgather": lambda x: hvd.grouped_allgather([x, x[:1]]),
        "broadcast": lambda x: hvd.broadcast(x, hvd.size() - 1),
        "alltoall": lambda x: hvd.alltoall(x, splits=splits())[0],
        "reducescatter": hvd.reducescatter,
        "grouped_reducescatter": lambda x: hvd.grouped_reducescatter([x, 3.0 * x], op=hvd.Sum),
    }


def rows() -> int:
    return sum(splits())


def loss_of(results: Any) -> Any:
    """Weighs each element of the results otherwise, and otherwise on every rank."""
    weighted = []
    for result in tf.nest.flatten(results):
        weights = tf.reshape(tf.range(tf.size(result)), tf.shape(result))
        weighted.append(tf.reduce_sum(result * tf.cast(weights + hvd.rank() + 1, result.dtype)))
    return tf.add_n(weighted)


def check_gradients_in_a_session_are_those_of_eager_execution() -> None:
    for name, operation in operations().items():
        tensor = ours(rows(), 2)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            loss = loss_of(operation(tensor))
        expected = tape.gradient(loss, tensor).numpy()
        assert np.abs(expected).max() > 0 or (name == "broadcast" and hvd.rank() < hvd.size() - 1), name
        (gradient,) = in_session(lambda x, run=operation: tf.gradients(loss_of(run(x)), x), tensor)
        same(gradient, expected, 1e-6)
