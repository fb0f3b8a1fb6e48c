"""Keras's own features around a distributed optimizer."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import numpy as np
import pytest
import tensorflow as tf
from hvd_gossip.tensorflow.keras.optimizer import DistributedKerasOptimizer

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.limits import mean_moves
from tests.tensorflow_frontend.keras.models import (
    GOSSIP,
    ROWS,
    SYNCHRONOUS,
    batch,
    close,
    data,
    everybodys,
    fit,
    gradient,
    initial,
    limit_of,
    make_model,
    mean,
    plus,
)

RATE = 0.25
IN_TURN = {"algorithm": "dpsgd", "topology": "complete", "mixing_weights": "uniform", "mixing_order": "sequential"}
"""D-PSGD that is allreduce-SGD, but for rounding."""


def plain_weights(steps: int = 4, make: Any = None, **options: Any) -> Any:
    """The weights after steps of the plain optimizer with the ranks' batches joined into one: what averaging gives."""
    model = make_model(initial(0))
    model.compile(optimizer=make() if make else keras.optimizers.SGD(RATE, momentum=0.9), loss="mse", **options)
    for step in range(steps):
        parts = [batch(rank, step, steps) for rank in range(hvd.size())]
        model.train_on_batch(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    return model.get_weights()


def check_features_of_the_wrapped_optimizer_work_as_without_distribution() -> None:
    """horovod#3726, #3725, #3903: the optimizers that Keras has had since 2.11 were refused; #4290: Keras 3's variables."""
    makers = {
        "momentum": lambda: keras.optimizers.SGD(RATE, momentum=0.9),
        "adam": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1, weight_decay=0.1),
        "ema": lambda: keras.optimizers.SGD(RATE, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
        "accumulation": lambda: keras.optimizers.SGD(RATE, gradient_accumulation_steps=2),
        "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)),
    }
    for name, make in makers.items():
        model = fit(make_model(initial(0)), hvd_keras.DistributedOptimizer(make()), 4)
        try:
            close(model.get_weights(), plain_weights(4, make), tolerance=1e-5)
        except AssertionError as error:
            raise AssertionError(name) from error


def check_linear_features_of_the_wrapped_optimizer_work_with_gossip() -> None:
    """Where the update is linear in the gradients, mixing with equal weights gives what averaged gradients give."""
    makers = {
        "ema": lambda: keras.optimizers.SGD(RATE, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
        "accumulation": lambda: keras.optimizers.SGD(RATE, gradient_accumulation_steps=2),
        "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)),
    }
    for name, make in makers.items():
        model = fit(make_model(initial(0)), hvd_keras.DistributedOptimizer(make(), **IN_TURN), 4)
        try:
            with hvd.consensus(model):  # at the end of `fit` each model is its own worker's moving average
                close(model.get_weights(), plain_weights(4, make), tolerance=1e-5)
        except AssertionError as error:
            raise AssertionError(name) from error


def check_each_worker_clips_its_own_gradients_with_gossip() -> None:
    limit = 0.1
    optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE, global_clipnorm=limit), **IN_TURN)
    model = fit(make_model(initial(0)), optimizer)
    clipped = []
    for rank in range(hvd.size()):
        own = gradient(initial(0), *batch(rank, 0, 1))
        length = np.sqrt(sum(np.square(one).sum() for one in own))
        assert length > limit
        clipped.append([one * limit / length for one in own])
    close(model.get_weights(), plus(initial(0), mean(clipped), -RATE))


def check_all_variables_of_a_step_cross_at_once() -> None:
    """One operation that calls Python in the traced step, however many variables there are."""
    layers = keras.layers
    for settings in ({}, IN_TURN, {"algorithm": "adpsgd"}):
        model = keras.Sequential([layers.Input((4,)), *(layers.Dense(4) for _ in range(5))])
        optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.Adam(0.01), **settings)
        optimizer.build(model.trainable_variables)
        step = tf.function(lambda m=model, o=optimizer: o.apply([v.value * 0.5 for v in m.trainable_variables]))
        graph = step.get_concrete_function().graph
        crossings = [operation for operation in graph.get_operations() if operation.type == "MapDataset"]
        assert len(crossings) == (1 if settings or hvd.size() > 1 else 0), settings


def check_the_exchange_comes_after_a_function_that_xla_compiles() -> None:
    """What is said to do where XLA is on (horovod#2590): compile the gradients, communicate outside."""
    expected = plain_weights(3, make=lambda: keras.optimizers.SGD(RATE))
    for settings in ({}, IN_TURN):
        model = make_model(initial(0))
        optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), **settings)
        optimizer.build(model.trainable_variables)

        @tf.function(jit_compile=True)
        def gradients(inputs: Any, targets: Any, model: Any = model) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(inputs) - targets))
            return tape.gradient(loss, model.trainable_variables)

        @tf.function
        def step(inputs: Any, targets: Any, optimizer: Any = optimizer, gradients: Any = gradients) -> None:
            optimizer.apply(gradients(inputs, targets))

        for number in range(3):
            step(*batch(hvd.rank(), number, 3))
        close(model.get_weights(), expected, tolerance=1e-5)


def check_steps_per_execution_and_eager_execution() -> None:
    expected = plain_weights()
    for options in ({"steps_per_execution": 2}, {"run_eagerly": True}):
        for settings in ({}, IN_TURN):
            optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE, momentum=0.9), **settings)
            if settings:  # velocities are local to a rank: only without momentum both are one algorithm
                optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), **settings)
                expected = plain_weights(make=lambda: keras.optimizers.SGD(RATE))
            else:
                expected = plain_weights()
            close(fit(make_model(initial(0)), optimizer, 4, **options).get_weights(), expected, tolerance=1e-5)


def check_a_train_step_of_ones_own_and_a_loop() -> None:
    class Own(keras.Sequential):  # type: ignore[misc]
        def train_step(self, pair: Any) -> Any:
            inputs, targets = pair
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(inputs) - targets))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    expected = plain_weights(make=lambda: keras.optimizers.SGD(RATE))
    for settings in ({}, IN_TURN):
        model = Own([keras.layers.Input((4,)), keras.layers.Dense(3)])
        model.set_weights(initial(0))
        optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), **settings)
        close(fit(model, optimizer, 4).get_weights(), expected, tolerance=1e-5)


def check_sparse_gradients_of_an_embedding() -> None:
    """horovod#2806: with sparse_as_dense and several passes, an error."""
    rows = np.arange(4) + hvd.rank()
    passes = {"sparse_as_dense": True, "backward_passes_per_step": 2, "average_aggregated_gradients": True}
    for settings in ({}, {"sparse_as_dense": True}, passes, IN_TURN):
        table = keras.layers.Embedding(8, 2, embeddings_initializer="ones")
        model = keras.Sequential([keras.layers.Input((1,)), table, keras.layers.Flatten()])
        model.compile(optimizer=hvd_keras.DistributedOptimizer(keras.optimizers.SGD(1.0), **settings), loss="mse")
        for _ in range(settings.get("backward_passes_per_step", 1)):
            model.train_on_batch(rows[:, None], np.zeros((4, 2)))
        expected = np.ones((8, 2))
        for rank in range(hvd.size()):
            expected[np.arange(4) + rank] -= 2 * 1.0 / 8 / hvd.size()
        close([table.get_weights()[0]], [expected])


def check_passes_add_up_before_a_step() -> None:
    for settings in ({}, IN_TURN):
        for average in (False, True):
            optimizer = hvd_keras.DistributedOptimizer(
                keras.optimizers.SGD(RATE), backward_passes_per_step=2, average_aggregated_gradients=average, **settings
            )
            model = fit(make_model(initial(0)), optimizer, 3)
            sums = [
                plus(gradient(initial(0), *batch(rank, 0, 3)), gradient(initial(0), *batch(rank, 1, 3)))
                for rank in range(hvd.size())
            ]
            close(model.get_weights(), plus(initial(0), mean(sums), -RATE / (2 if average else 1)), tolerance=1e-5)
            assert int(optimizer.iterations) == 3


def check_a_step_that_overflows_on_one_rank() -> None:
    """Loss scaling skips it: on all ranks if gradients are averaged; with gossip the others make theirs."""
    for settings in ({}, IN_TURN, {"algorithm": "adpsgd"}):
        optimizer = keras.optimizers.LossScaleOptimizer(
            hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), **settings), initial_scale=8.0
        )
        model = make_model(initial(0))
        model.compile(optimizer=optimizer, loss="mse")
        inputs, targets = batch(hvd.rank(), 0, 1)
        bad = np.full_like(inputs, np.inf) if hvd.rank() == hvd.size() - 1 else inputs
        for _ in range(2):
            model.train_on_batch(bad, targets)
        if not settings:
            close(model.get_weights(), initial(0), tolerance=0.0)
        scales = hvd.allgather_object(float(optimizer.dynamic_scale))
        assert scales[-1] == 2.0
        assert all(scale == (8.0 if settings else 2.0) for scale in scales[:-1]) or hvd.size() == 1
        model.train_on_batch(inputs, targets)
        with hvd.consensus(model):
            assert np.isfinite(model.get_weights()[0]).all()
        if settings == IN_TURN or not settings:
            assert hvd.consensus_distance(model) < 1e-6


def check_mixed_precision() -> None:
    """horovod#3860: LossScaleOptimizer around Keras's new optimizers."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        for settings in ({}, {"algorithm": "sgp"}):
            for wrap in (False, True):
                plain = keras.optimizers.SGD(0.1)
                optimizer = keras.optimizers.LossScaleOptimizer(plain) if wrap else plain
                model = fit(make_model(initial(0)), hvd_keras.DistributedOptimizer(optimizer, **settings), 12)
                assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
                assert isinstance(model.optimizer.inner_optimizer, DistributedKerasOptimizer)
                steps = hvd.allgather_object(int(model.optimizer.iterations))
                assert min(steps) > 0
                if not settings:
                    assert len(set(steps)) == 1
                    for weights in everybodys(model.get_weights()):
                        close(weights, model.get_weights(), tolerance=0.0)
    finally:
        keras.mixed_precision.set_global_policy("float32")


def check_variables_assigned_between_steps_are_noticed() -> None:
    for algorithm in GOSSIP:
        model = fit(make_model(), hvd_keras.DistributedOptimizer(keras.optimizers.SGD(0.0), algorithm=algorithm), 3)
        with hvd.consensus(model):
            pass  # what was under way is through
        loaded = initial(50 + hvd.rank())
        model.set_weights(loaded)
        with hvd.consensus(model):
            mixed = model.get_weights()
        close(model.get_weights(), loaded, tolerance=0.0)
        if not ALGORITHMS[algorithm].overwritable or mean_moves(algorithm, hvd.size()):
            continue
        model.fit(*batch(hvd.rank(), 0, 1), batch_size=ROWS, verbose=0)
        expected = mean([initial(50 + rank) for rank in range(hvd.size())])
        # Asynchronous workers may have been given, since their last step, what they get with the next one.
        late = 0.0 if algorithm in SYNCHRONOUS else np.ptp([initial(rank)[0] for rank in range(hvd.size())], axis=0)
        with hvd.consensus(model):
            for values in (model.get_weights(), mixed):
                assert (np.abs(values[0] - expected[0]) <= late + 1e-5).all(), algorithm


def check_broadcast_overwrites_what_is_mixed() -> None:
    for algorithm in GOSSIP:
        model = fit(make_model(), hvd_keras.DistributedOptimizer(keras.optimizers.SGD(0.0), algorithm=algorithm), 3)
        hvd.broadcast_variables(model.weights, root_rank=hvd.size() - 1)
        expected = model.get_weights()
        for weights in everybodys(expected):
            close(weights, expected, tolerance=0.0)
        assert hvd.consensus_distance(model) < 1e-6
        model.fit(*data(hvd.rank(), 3), batch_size=ROWS, verbose=0)  # nothing of before comes back
        close(model.get_weights(), expected)


def check_what_was_exchanged_last_is_kept_by_join_and_by_a_broadcast_of_other_variables() -> None:
    """The sum over all workers stands still: nothing that is under way, or waits to be applied, is lost."""
    for algorithm in (name for name in GOSSIP if not mean_moves(name, hvd.size())):
        model = fit(make_model(), hvd_keras.DistributedOptimizer(keras.optimizers.SGD(0.0), algorithm=algorithm), 3)
        expected = limit_of(algorithm)
        hvd.join()
        model.fit(*data(hvd.rank(), 2), batch_size=ROWS, verbose=0)
        with hvd.consensus(model):
            close(model.get_weights(), expected)
        hvd.broadcast_variables(model.weights[1:], root_rank=0)
        model.fit(*data(hvd.rank(), 2), batch_size=ROWS, verbose=0)
        with hvd.consensus(model):
            close(model.get_weights()[:1], expected[:1])


def check_xla_is_turned_off_with_a_warning() -> None:
    model = make_model(initial(0))
    with pytest.warns(UserWarning, match="jit_compile is off"):
        model.compile(
            optimizer=hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE)), loss="mse", jit_compile=True
        )
    assert not model.jit_compile
    model.train_on_batch(*batch(hvd.rank(), 0, 1))
    make_model(initial(0)).compile(optimizer="sgd", loss="mse", jit_compile=True)  # another one's is left alone
    if hvd.size() == 1:
        return
    for settings in ({}, {"algorithm": "dpsgd"}):
        optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), **settings)
        optimizer.build([keras.Variable([1.0])])
        compiled = tf.function(optimizer.apply, jit_compile=True)
        with pytest.raises(NotImplementedError, match="jit_compile=False"):
            compiled([tf.constant([1.0])])


def check_an_argument_of_horovods_own_scripts_is_taken() -> None:
    """`experimental_run_tf_function=False` asked Keras 2.0 to call the optimizer; Keras 3 does so, and has no such argument."""
    old = {"loss": "mse", "experimental_run_tf_function": False}
    model = make_model(initial(0))
    model.compile(optimizer=hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE)), **old)
    model.train_on_batch(*batch(hvd.rank(), 0, 1))
    model.compile(
        hvd_keras.DistributedOptimizer(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE))), **old
    )
    for plain in ("sgd", keras.optimizers.SGD(RATE)):
        with pytest.raises(TypeError, match="experimental_run_tf_function"):
            model.compile(optimizer=plain, **old)


def check_local_layers_stay_local() -> None:
    for settings in ({}, IN_TURN):
        model = make_model()
        own = model.layers[0]
        head = keras.layers.Dense(1, kernel_initializer="ones")
        model = keras.Sequential([keras.layers.Input((4,)), own, head])
        optimizer = hvd_keras.PartialDistributedOptimizer(keras.optimizers.SGD(RATE), local_layers=own, **settings)
        model.compile(optimizer=optimizer, loss="mse")
        inputs, targets = batch(hvd.rank(), 0, 1)
        before = own.get_weights()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(inputs) - targets[:, :1]))
        gradients = tape.gradient(loss, own.trainable_variables)
        model.train_on_batch(inputs, targets[:, :1])
        close(own.get_weights(), plus(before, [g.numpy() for g in gradients], -RATE / hvd.size()), tolerance=1e-5)
        for weights in everybodys(head.get_weights()):
            close(weights, head.get_weights())
