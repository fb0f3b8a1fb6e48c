"""Batch normalization over the batches of all workers (Horovod's `hvd.SyncBatchNormalization`), for Keras 3.

Each worker sends, in one message, how many values a channel has, their mean and the sum of their squared distances from it. All
merge these pairwise exactly (Chan, Golub, LeVeque: "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
1979), which is stable where E[x^2] - E[x]^2 is not. One allgather forward, one allreduce backward.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.calls import Call
from hvd_gossip.collectives import Sum

from . import differentiable
from .submit import call_of


@keras.saving.register_keras_serializable(package="hvd_gossip")
class SyncBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Takes the place of `keras.layers.BatchNormalization`: in training equal to it over the concatenated batches of all
    workers.

    The gradients of gamma and beta are this worker's own, to be averaged by the distributed optimizer or tape. In inference
    nothing is communicated, so any worker may evaluate alone. In training all workers call their layers in the same order.

    Args:
        args, kwargs: as for `keras.layers.BatchNormalization`, except `synchronized`. `fused` (of older Keras) is ignored.
        process_set: the workers whose batches belong together.
    """

    def __init__(self, *args: Any, process_set: ProcessSet = global_process_set, **kwargs: Any) -> None:
        kwargs.pop("fused", None)
        if kwargs.pop("synchronized", False):
            raise ValueError("synchronized=True is for tf.distribute; SyncBatchNormalization synchronizes by itself")
        super().__init__(*args, **kwargs)
        self.process_set = process_set

    def get_config(self) -> dict[str, Any]:
        """Without the process set: a model that is loaded synchronizes over all workers unless it is set anew."""
        config: dict[str, Any] = super().get_config()
        config.pop("synchronized", None)
        return config

    def _moments(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        if self.process_set.size() == 1:
            mean, variance = super()._moments(inputs, mask)
            return mean, variance
        weights = None
        if mask is not None:
            weights = tf.broadcast_to(tf.cast(mask, inputs.dtype)[..., tf.newaxis], tf.shape(inputs))
        axes = list(self._reduction_axes)
        call = call_of("allgather", [inputs], f"sync_batch_norm.{self.name}", self.process_set)
        return moments_of_all(inputs, weights, axes, call)


def moments_of_all(inputs: Any, weights: Any, axes: list[int], call: Call) -> tuple[Any, Any]:
    """Mean and variance of all workers' values, a channel, the same to the last bit everywhere.

    The gradient of the inputs is that of the sum of all workers' losses, as that of an allreduce: with N values in all,
    dx = (dmean + 2 (x - mean) dvariance) / N, d summed over the workers.

    Args:
        inputs: floating.
        weights: of the shape of inputs, 1 for what counts and 0 for what does not; None: everything counts.
        axes: all but the channels'.
        call: of the allgather.
    """

    def moments(x: Any) -> tuple[tuple[Any, Any], Any]:
        wide = tf.cast(x, tf.float64)
        ones = tf.ones_like(wide) if weights is None else tf.cast(weights, tf.float64)
        count = tf.reduce_sum(ones, axes)
        own_mean = tf.math.divide_no_nan(tf.reduce_sum(wide * ones, axes), count)
        square = tf.reduce_sum(ones * tf.math.squared_difference(wide, _spread(own_mean, x, axes)), axes)
        everybody = differentiable.allgather(call, [tf.stack([count, own_mean, square])[tf.newaxis]])[0]
        counts, means, squares = everybody[:, 0], everybody[:, 1], everybody[:, 2]
        total = tf.reduce_sum(counts, 0)
        mean = tf.math.divide_no_nan(tf.reduce_sum(counts * means, 0), total)
        spread = tf.reduce_sum(squares + counts * tf.math.squared_difference(means, mean), 0)
        variance = tf.math.divide_no_nan(spread, total)

        def gradient(dmean: Any, dvariance: Any) -> Any:
            upstream = tf.cast(tf.stack([dmean, dvariance]), tf.float64)
            (sums,) = differentiable.allreduce(
                call.backward("allreduce", op=Sum, prescale=1.0, postscale=1.0), [upstream]
            )
            parts = tf.math.divide_no_nan(sums, total)
            centred = wide - _spread(mean, x, axes)
            dx = ones * (_spread(parts[0], x, axes) + 2 * centred * _spread(parts[1], x, axes))
            return tf.cast(dx, x.dtype)

        return (tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)), gradient

    mean, variance = tf.custom_gradient(moments)(inputs)
    return mean, variance


def _spread(values: Any, like: Any, axes: list[int]) -> Any:
    """A value a channel in a shape that meets the inputs."""
    return tf.reshape(values, [1 if axis in axes else -1 for axis in range(like.shape.rank)])
