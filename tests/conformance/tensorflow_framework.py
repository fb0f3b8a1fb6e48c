"""TensorFlow with Keras 3, for the cases: eagerly, as the cases are written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.conformance.case import FLOATS, INTEGERS
from tests.conformance.framework import Array, Normalized, Operation


class TensorFlowFramework:
    """`hvd_gossip.tensorflow`, under this or another name. See `Framework`."""

    reduced = (*FLOATS, *INTEGERS)
    moved = (*FLOATS, *INTEGERS, "bool")

    def __init__(self, hvd: Any) -> None:
        self.hvd = hvd
        self.errors: tuple[type[BaseException], ...] = (hvd.HorovodInternalError,)

    def tensor(self, values: object, dtype: str = "float32") -> Any:
        return tf.cast(np.asarray(values), tf.as_dtype(dtype))

    def strided(self, values: Array) -> Any:
        return self.tensor(values)  # TensorFlow's tensors have no strides

    def numpy(self, tensor: Any) -> Array:
        array: Array = tensor.numpy()
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array

    def dtype_of(self, tensor: Any) -> str:
        return str(tensor.dtype.name)

    def together(self, operations: Sequence[Operation]) -> list[Any]:
        # Eager operations wait: each on a thread of its own.
        with ThreadPoolExecutor(max(1, len(operations))) as threads:
            calls = [
                threads.submit(getattr(self.hvd, kind), *arguments, **options)
                for kind, arguments, options in operations
            ]
            return [call.result() for call in calls]

    def gradients(
        self, function: Callable[[list[Any]], list[Any]], inputs: Sequence[Array], upstream: Sequence[Array]
    ) -> list[Array]:
        tensors = [self.tensor(array) for array in inputs]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(tensors)
            terms = [
                tf.reduce_sum(output * self.tensor(factor)) for output, factor in zip(outputs, upstream, strict=True)
            ]
            loss = tf.add_n(terms)
        return [self.numpy(gradient) for gradient in tape.gradient(loss, tensors)]

    def variables(self, arrays: Sequence[Array]) -> list[Any]:
        return [tf.Variable(self.tensor(array)) for array in arrays]

    def broadcast_variables(self, variables: Sequence[Any], root_rank: int) -> None:
        self.hvd.broadcast_variables(variables, root_rank)

    def optimizer(
        self, variables: Sequence[Any], rate: float, **options: Any
    ) -> Callable[[Sequence[Sequence[Array]]], None]:
        optimizer = self.hvd.DistributedOptimizer(keras.optimizers.SGD(rate), **options)
        own = [keras.Variable(variable) for variable in variables]

        def step(passes: Sequence[Sequence[Array]]) -> None:
            for gradients in passes:
                optimizer.apply_gradients(zip(map(self.tensor, gradients), own, strict=True))
            for variable, changed in zip(variables, own, strict=True):
                variable.assign(changed)

        return step

    def normalize(self, batch: Array, upstream: Array, momentum: float, **options: Any) -> Normalized:
        layer = self.hvd.SyncBatchNormalization(axis=1, momentum=1 - momentum, epsilon=1e-5, **options)
        tensor = self.tensor(batch)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            output = layer(tensor, training=True)
            loss = tf.reduce_sum(output * self.tensor(upstream))
        gradient = tape.gradient(loss, tensor)
        # Keras keeps the variance of the values; the cases want the estimate, which is larger by n / (n - 1).
        count = float(self.hvd.allreduce(float(batch.size // batch.shape[1]), op=self.hvd.Sum))
        variance = 1 - momentum + (self.numpy(layer.moving_variance) - (1 - momentum)) * count / (count - 1)
        return Normalized(self.numpy(output), self.numpy(gradient), self.numpy(layer.moving_mean), variance)

    @contextmanager
    def tolerate_deprecated(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield


def make(hvd: Any) -> TensorFlowFramework:
    """For `rank_main`."""
    return TensorFlowFramework(hvd)
