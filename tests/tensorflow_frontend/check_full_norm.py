"""Checks of FullNormalization against its equations in NumPy and against BatchNormalization."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hvd_gossip.tensorflow as hvd
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.full_norm_equations import Equations
from tests.tensorflow_frontend.tensors import Array, same

C = 3
SHAPES = [(4, C), (2, C, 5), (2, C, 3, 2)]


def batch(shape: Sequence[int], step: int, dtype: Any = np.float64) -> Array:
    """Another one each step, with another mean and spread."""
    values: Array = (np.random.default_rng(step).normal(size=shape) * (1 + step) + step).astype(dtype)
    return values


def built(kind: Any, shape: Sequence[int], **options: Any) -> Any:
    """A layer over axis 1 with weights of its own."""
    layer = kind(**{"axis": 1, "dtype": "float64", **options})
    layer.build((None, *shape[1:]))
    for number, weight in enumerate(one for one in (layer.gamma, layer.beta) if one is not None):
        weight.assign(np.random.default_rng(number).normal(size=C))
    return layer


def run(layer: Any, x: Any, upstream: Any, **call: Any) -> tuple[Any, ...]:
    """Output, gradient of the input, gradients of gamma and beta."""
    tensor = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        output = layer(tensor, training=True, **call)
        loss = tf.reduce_sum(output * tf.cast(upstream, output.dtype))
    weights = [weight.value for weight in (layer.gamma, layer.beta) if weight is not None]
    return output, *tape.gradient(loss, [tensor, *weights])


def compare(shape: Sequence[int], tolerance: float, graph: bool = False, **options: Any) -> None:
    """Five steps, each compared with the equations."""
    layer = built(hvd.FullNormalization, shape, **options)
    step = tf.function(run) if graph else run
    equations = Equations(C, 1 - layer.momentum, layer.epsilon, layer.track_gradients)
    weight, bias = (
        np.asarray(one) if one is not None else default
        for one, default in ((layer.gamma, np.ones(C)), (layer.beta, np.zeros(C)))
    )
    for number in range(5):
        x, upstream = batch(shape, number, layer.dtype), batch(shape, 100 + number, layer.dtype) / 100
        output, dx, *gradients = step(layer, tf.constant(x), tf.constant(upstream))
        same(output, equations.forward(x, weight, bias), tolerance)
        expected = equations.backward(upstream)
        same(dx, expected[0], tolerance)
        for gradient, value in zip(gradients, expected[1:], strict=False):
            same(gradient, value, 10 * tolerance)
        same(layer.moving_mean, equations.first, tolerance)
        same(layer.moving_variance, equations.variance, 10 * tolerance)


def check_full_norm_is_what_the_equations_say() -> None:
    for shape in SHAPES:
        compare(shape, 1e-9)
        compare(shape, 1e-9, track_gradients=False)
    compare((2, C, 3, 2), 1e-9, graph=True)
    compare((2, C), 5e-5, dtype="float32")
    compare((1, C), 1e-6, momentum=0.5)
    compare((2, C, 4), 1e-9, scale=False, center=False, epsilon=0.1)


def check_full_norm_with_alpha_1_is_batch_normalization() -> None:
    for shape in SHAPES:
        ours = built(hvd.FullNormalization, shape, momentum=0.0)
        plain = built(keras.layers.BatchNormalization, shape, momentum=0.0)
        for number in range(3):
            x, upstream = batch(shape, number), batch(shape, 100 + number)
            for mine, theirs in zip(run(ours, x, upstream), run(plain, x, upstream), strict=True):
                same(mine, theirs, 1e-11)
            same(ours.moving_variance, plain.moving_variance, 1e-11)


def check_full_norm_in_inference_and_frozen() -> None:
    layer = built(hvd.FullNormalization, (4, C))
    for number in range(3):
        layer(batch((4, C), number), training=True)
    before = layer.get_weights()
    x = batch((2, C), 9)
    scale = np.asarray(layer.gamma) / np.sqrt(np.asarray(layer.moving_variance) + layer.epsilon)
    expected = (x - np.asarray(layer.moving_mean)) * scale + np.asarray(layer.beta)
    same(layer(x), expected, 1e-12)
    same(layer(x, training=False), expected, 1e-12)
    layer.trainable = False
    same(layer(x, training=True), expected, 1e-12)
    layer.trainable = True
    for weight, value in zip(layer.get_weights(), before, strict=True):
        same(weight, value)


def check_full_norm_masked_values_are_no_part_of_the_estimates() -> None:
    layer, few = (built(hvd.FullNormalization, (4, 2, C), axis=-1, momentum=0.5) for _ in range(2))
    x, mask = batch((4, 2, C), 1), np.array([[True, False]] * 4)
    for scale in (1.0, 1e3):
        x[:, 1] *= scale
        run(layer, x, np.ones_like(x), mask=tf.constant(mask))
        run(few, x[:, :1], np.ones_like(x[:, :1]))
        same(layer.moving_mean, few.moving_mean, 1e-5)
        same(layer.moving_variance, few.moving_variance, 1e-5)
    with pytest.raises(ValueError, match="one dimension less"):
        layer(x, training=True, mask=np.ones((4, 2, C), bool))


def check_full_norm_under_mixed_precision() -> None:
    for policy, half in (("mixed_float16", tf.float16), ("mixed_bfloat16", tf.bfloat16)):
        layer = built(hvd.FullNormalization, (4, C), dtype=policy)
        output, dx, *_ = run(layer, tf.cast(batch((4, C), 1), half), np.ones((4, C)))
        assert output.dtype == dx.dtype == half
        assert layer.moving_variance.dtype == "float32"


def check_full_norm_takes_in_nothing_that_is_not_finite() -> None:
    layer = built(hvd.FullNormalization, (4, C))
    run(layer, batch((4, C), 0), np.ones((4, C)))
    before = [np.asarray(one) for one in (layer.moving_mean, layer.moving_variance, layer.running_gradient)]
    x, upstream = batch((4, C), 1), np.ones((4, C))
    x[0, 0], upstream[0, 1] = np.inf, np.nan
    run(layer, x, upstream)
    after = [np.asarray(one) for one in (layer.moving_mean, layer.moving_variance, layer.running_gradient)]
    assert all(np.isfinite(one).all() for one in after)
    for old, new in zip(before, after, strict=True):
        same(new[..., 0], old[..., 0])
    assert after[0][1] != before[0][1]


def make_model() -> Any:
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Input((C,)), layers.Dense(C), layers.BatchNormalization(name="inside")], name="inner"
    )
    return keras.Sequential(
        [layers.Input((4,)), layers.Dense(C), layers.BatchNormalization(momentum=0.8, name="first"), inner,
         layers.Dropout(0.5), layers.BatchNormalization(center=False, scale=False, trainable=False, name="last")]
    )  # fmt: skip


def check_full_norm_takes_the_place_of_batch_normalization_in_a_model() -> None:
    model = make_model()
    model.layers[1](batch((4, C), 3, np.float32), training=True)
    converted = hvd.convert_full_normalization(model, track_gradients=False)
    x = batch((5, 4), 1, np.float32)
    same(converted(x), model(x), 1e-6)
    first, inside, last = converted.layers[1], converted.get_layer("inner").layers[1], converted.layers[-1]
    assert {type(one) for one in (first, inside, last)} == {hvd.FullNormalization}
    assert (first.momentum, first.name, last.trainable, first.track_gradients) == (0.8, "first", False, False)
    same(first.batches, 5.0, 1e-6)
    same(inside.batches, 0.0)
    assert type(model.layers[1]) is keras.layers.BatchNormalization


def check_full_norm_is_trained_by_fit_and_saved_whole() -> None:
    keras.utils.set_random_seed(hvd.rank())
    model = hvd.convert_full_normalization(make_model(), momentum=0.9)
    model.compile("sgd", "mse")
    x = batch((32, 4), 1, np.float32)
    model.fit(x, x[:, :C], batch_size=2, verbose=0)
    first = model.layers[1]
    same(first.batches, 16.0)
    assert np.asarray(first.running_gradient).any()
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras's own, of NumPy 2
        path = Path(folder, "model.keras")
        model.save(path)
        again = keras.models.load_model(path)
    assert type(again.layers[1]) is hvd.FullNormalization
    for weight, value in zip(again.get_weights(), model.get_weights(), strict=True):
        same(weight, value)
    for one in (model, again):
        one.layers[-2].rate = 0.0
        one.train_on_batch(x[:2], x[:2, :C])
    same(again.layers[1].running_gradient, first.running_gradient, 1e-6)


def check_full_norm_refuses_what_it_cannot_do() -> None:
    for options in ({"synchronized": True}, {"renorm": True}):
        with pytest.raises(ValueError, match="estimates of its own"):
            hvd.FullNormalization(**options)
    for momentum in (1.0, -0.1):
        with pytest.raises(ValueError, match="0 < weight of a batch"):
            hvd.FullNormalization(momentum=momentum)


def check_full_norm_of_a_process_set_is_that_of_all_its_batches() -> None:
    n, rank = hvd.size(), hvd.rank()
    shape = (2, C, 3)
    ours = built(hvd.FullNormalization, shape, process_set=hvd.global_process_set)
    whole = built(hvd.FullNormalization, shape)
    for number in range(3):
        batches, upstreams = ([batch(shape, 10 * one + number + start) for one in range(n)] for start in (0, 500))
        part = slice(rank * 2, rank * 2 + 2)
        mine = run(ours, batches[rank], upstreams[rank])
        theirs = run(whole, np.concatenate(batches), np.concatenate(upstreams))
        same(mine[0], theirs[0][part], 1e-9)
        same(mine[1], theirs[1][part], 1e-9)
        same(hvd.allreduce(mine[2], op=hvd.Sum), theirs[2], 1e-8)
        same(ours.moving_variance, whole.moving_variance, 1e-9)


def check_full_norm_estimates_are_averaged_by_consensus() -> None:
    model = keras.Sequential([keras.layers.Input((C,)), hvd.FullNormalization()])
    model.layers[0](batch((4, C), hvd.rank(), np.float32), training=True)
    own = [np.asarray(one) for one in model.variables]
    everybody = hvd.allgather(tf.constant(own[2])[None])
    with hvd.consensus(model):
        same(model.layers[0].moving_mean, np.mean(everybody, axis=0), 1e-6)
    for variable, value in zip(model.variables, own, strict=True):
        same(variable, value)
