"""Checks of SyncBatchNormalization: equal to one worker that has all batches."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tensorflow_frontend.tensors import Array, same


def batch_of(rank: int, *shape: int) -> Array:
    """A rank's batch; of another size on every rank."""
    generator = np.random.default_rng(rank)
    return generator.normal(3.0, 2.0, (rank + 2, *shape)).astype(np.float32)


def upstream_of(rank: int, *shape: int) -> Array:
    """What reaches the layer's output from a rank's loss."""
    return np.random.default_rng(100 + rank).normal(size=(rank + 2, *shape)).astype(np.float32)


def run(layer: Any, batch: Any, upstream: Any, **call: Any) -> tuple[Any, ...]:
    """Output, gradient of the input, gradients of gamma and beta."""
    tensor = tf.convert_to_tensor(batch)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        output = layer(tensor, training=True, **call)
        loss = tf.reduce_sum(output * upstream)
    gradients = tape.gradient(loss, [tensor, layer.gamma.value, layer.beta.value])
    return output, *gradients


def compare(axis: int, *shape: int, graph: bool = False) -> None:
    """One training step beside `BatchNormalization` over all ranks' batches."""
    n, rank = hvd.size(), hvd.rank()
    batches, upstreams = ([f(r, *shape) for r in range(n)] for f in (batch_of, upstream_of))
    ours, plain = hvd.SyncBatchNormalization(axis=axis), keras.layers.BatchNormalization(axis=axis)
    for layer in (ours, plain):
        layer.build((None, *shape))
    step = tf.function(run) if graph else run
    output, dx, dgamma, dbeta = step(ours, batches[rank], upstreams[rank])
    whole = run(plain, np.concatenate(batches), np.concatenate(upstreams))
    start = sum(len(batch) for batch in batches[:rank])
    part = slice(start, start + len(batches[rank]))
    same(output, whole[0][part], 1e-4)
    same(dx, whole[1][part], 1e-4)
    same(hvd.allreduce(dgamma, op=hvd.Sum), whole[2], 1e-3)
    same(hvd.allreduce(dbeta, op=hvd.Sum), whole[3], 1e-3)
    same(ours.moving_mean.value, plain.moving_mean.value, 1e-4)
    same(ours.moving_variance.value, plain.moving_variance.value, 1e-4)


def check_it_is_batch_normalization_of_all_batches() -> None:
    """horovod#2066, #2075: there was none for TensorFlow."""
    compare(-1, 3)
    compare(-1, 4, 2, 3)
    compare(1, 3, 4)
    compare(-1, 3, graph=True)


def check_horovod_2100_a_traced_function_after_another_init() -> None:
    """horovod#2100: a graph kept the number of workers that there was when it was traced."""
    n, rank = hvd.size(), hvd.rank()
    layer = hvd.SyncBatchNormalization(axis=-1)
    layer.build((None, 3))
    step = tf.function(lambda x: layer(x, training=True))
    for some in ([*range(n)], [*range(n - 1)] if rank < n - 1 else [n - 1], [*range(n)]):
        hvd.shutdown()
        hvd.init(some, process_sets="dynamic")
        everybody = np.concatenate([batch_of(one, 3) for one in some])
        expected = (batch_of(rank, 3) - everybody.mean(0)) / np.sqrt(everybody.var(0) + 1e-3)
        same(step(batch_of(rank, 3)), expected, 1e-4)


def check_inference_communicates_nothing() -> None:
    layer = hvd.SyncBatchNormalization()
    layer.build((None, 3))
    if hvd.rank() == 0:
        same(layer(np.ones((2, 3), np.float32), training=False), np.ones((2, 3)) / np.sqrt(1.001), 1e-5)


def check_masked_values_do_not_count() -> None:
    layer = hvd.SyncBatchNormalization()
    layer.build((None, 2, 3))
    batch = batch_of(hvd.rank(), 2, 3)
    batch[:, 1] = 1e6
    mask = np.zeros((len(batch), 2), bool)
    mask[:, 0] = True
    output, dx, *_ = run(layer, batch, np.ones_like(batch), mask=mask)
    everybody = np.concatenate([batch_of(rank, 2, 3)[:, 0] for rank in range(hvd.size())])
    expected = (batch[:, 0] - everybody.mean(0)) / np.sqrt(everybody.var(0) + 1e-3)
    same(output[:, 0], expected, 1e-2)
    assert np.isfinite(dx.numpy()).all()


def check_half_inputs_and_large_means() -> None:
    layer = hvd.SyncBatchNormalization(dtype="mixed_float16")
    layer.build((None, 3))
    output = layer(tf.cast(batch_of(hvd.rank(), 3), tf.float16), training=True)
    assert output.dtype == tf.float16
    layer = hvd.SyncBatchNormalization(momentum=0.0)
    layer.build((None, 3))
    layer(batch_of(hvd.rank(), 3) + 1e4, training=True)
    everybody = np.concatenate([batch_of(rank, 3).astype(np.float64) for rank in range(hvd.size())])
    same(layer.moving_variance.value, everybody.var(0), 2e-2)


def check_it_is_serialized() -> None:
    layer = hvd.SyncBatchNormalization(momentum=0.9, name="bn")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is hvd.SyncBatchNormalization
    assert again.momentum == 0.9
    assert hvd.SyncBatchNormalization(fused=False).process_set is hvd.global_process_set
    with pytest.raises(ValueError, match=r"tf\.distribute"):
        hvd.SyncBatchNormalization(synchronized=True)
