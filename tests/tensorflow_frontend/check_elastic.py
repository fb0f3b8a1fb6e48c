"""Checks of elastic states and of the loop around a training function."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tensorflow_frontend.tensors import ours, same


def check_variables_are_saved_restored_and_synchronized() -> None:
    variables = [tf.Variable(ours(3)), keras.Variable(ours(30_000))]
    state: Any = hvd.elastic.TensorFlowState(variables, batch=hvd.rank())
    variables[0].assign(tf.zeros(3))
    variables[1].assign(tf.zeros(30_000))
    state.batch = 100
    state.restore()
    same(variables[0], ours(3))
    same(variables[1].value, ours(30_000))
    assert state.batch == hvd.rank()
    state.sync()
    same(variables[0], ours(3, rank=0))
    assert state.batch == 0
    variables[0].assign_add(tf.ones(3))
    state.commit()
    variables[0].assign(tf.zeros(3))
    state.restore()
    same(variables[0], ours(3, rank=0) + 1)


def check_variables_of_a_session() -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.Variable(ours(3).numpy() if tf.executing_eagerly() else np.full(3, hvd.rank()))
        session.run(tf.compat.v1.global_variables_initializer())
        state: Any = hvd.elastic.TensorFlowState(session=session, epoch=hvd.rank())
        assert state.variables == [variable]
        session.run(variable.assign(np.full(3, 77)))
        state.restore()
        same(session.run(variable), np.full(3, hvd.rank()))
        state.sync()
        same(session.run(variable), np.zeros(3))
        assert state.epoch == 0


def check_variables_must_be_given_where_there_is_no_graph() -> None:
    with pytest.raises(ValueError, match="variables"):
        hvd.elastic.TensorFlowState()


def make_model() -> Any:
    """A compiled model with other weights on every rank."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
    model.set_weights([ours(*weight.shape) for weight in model.get_weights()])
    return model


def check_a_keras_model_with_its_optimizer() -> None:
    model = make_model()
    state = hvd.elastic.TensorFlowKerasState(model, epoch=0)
    assert state.optimizer is model.optimizer
    state.sync()
    before = [ours(*weight.shape, rank=0).numpy() for weight in model.get_weights()]
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    assert model.optimizer.iterations.numpy() == 1
    state.restore()
    for weight, value in zip(model.get_weights(), before, strict=True):
        same(weight, value)
    assert model.optimizer.iterations.numpy() == 0
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    state.commit()
    weights = model.get_weights()
    state.restore()
    for weight, value in zip(model.get_weights(), weights, strict=True):
        same(weight, value)


def check_horovod_2652_a_worker_that_has_not_trained_yet() -> None:
    """horovod#2652: a new worker's optimizer had no variables yet, for which the others' broadcasts waited."""
    model = make_model()
    if hvd.rank() == 0:
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    hvd.elastic.TensorFlowKerasState(model, epoch=0).sync()
    assert int(model.optimizer.iterations) == 1
    variables = [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    for one, other in zip(variables, hvd.broadcast_object(variables, root_rank=0), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(np.any(variable.numpy()) for variable in model.optimizer.variables[2:])  # Adam's moments


def check_the_loop_begins_anew_after_a_failure_inside_a_function() -> None:
    if hvd.size() == 1:
        return
    variable = tf.Variable(tf.zeros(2))
    state = hvd.elastic.TensorFlowState([variable], tries=0)
    tries = []

    @tf.function
    def reduce(x: Any) -> Any:
        return hvd.allreduce(x, name="elastic", op=hvd.Sum)

    @hvd.elastic.run
    def train(state: Any) -> float:
        tries.append(float(variable[0]))
        variable.assign_add(tf.ones(2))
        shape = 2 + (hvd.rank() % 2 if len(tries) == 1 else 0)
        return float(reduce(tf.ones(shape))[0])

    assert train(state) == hvd.size()
    assert tries == [0.0, 0.0]  # the second begins from what was saved
    same(variable, np.ones(2))


def check_other_errors_pass_through() -> None:
    state = hvd.elastic.ObjectState(hvd.broadcast_object, hvd.rank, epoch=0)

    @hvd.elastic.run
    def train(state: Any) -> None:
        tf.function(lambda: tf.debugging.assert_equal(1, tf.constant(2)))()

    with pytest.raises(tf.errors.InvalidArgumentError):
        train(state)
