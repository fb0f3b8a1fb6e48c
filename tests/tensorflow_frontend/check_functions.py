"""Checks of broadcasting variables and of Python objects."""

from __future__ import annotations

import hvd_gossip.tensorflow as hvd
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tensorflow_frontend.tensors import ours, same


def check_variables_take_the_roots_values() -> None:
    root = hvd.size() - 1
    variables = [
        tf.Variable(ours(3)),
        tf.Variable(ours(50_000)),
        tf.Variable(ours(2, dtype=tf.int64)),
        keras.Variable(ours(2, 2)),
    ]
    assert hvd.broadcast_variables(variables, root_rank=root) is None
    for variable in variables:
        same(
            variable.value() if isinstance(variable, tf.Variable) else variable.value, ours(*variable.shape, rank=root)
        )
    variables[1].assign_add(tf.ones(50_000))
    hvd.broadcast_variables(variables, root_rank=root, inplace=True)
    same(variables[1], ours(50_000, rank=root) + 1)
    hvd.broadcast_variables([], root_rank=root)


def check_broadcast_returns_the_variables() -> None:
    variables = [tf.Variable(ours(3)), tf.Variable(ours(2))]
    returned = hvd.broadcast_(variables, 0, name="two")
    assert [id(one) for one in returned] == [id(one) for one in variables]
    same(variables[0], ours(3, rank=0))


def check_variables_inside_a_function() -> None:
    variables = [tf.Variable(ours(3)), tf.Variable(ours(2))]

    @tf.function
    def spread() -> object:
        hvd.broadcast_variables(variables, root_rank=0)
        hvd.broadcast_variables([], root_rank=0)
        return variables[0] + 0.0

    same(spread(), ours(3, rank=0))
    same(variables[1], ours(2, rank=0))


def check_a_models_weights() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    model.set_weights([ours(*weight.shape) for weight in model.get_weights()])
    hvd.broadcast_variables(model.variables, root_rank=0)
    for weight in model.get_weights():
        same(weight, ours(*weight.shape, rank=0))


def check_global_variables_of_a_graph() -> None:
    with pytest.raises(RuntimeError, match="does not support eager execution"):
        hvd.broadcast_global_variables(0)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        first = tf.compat.v1.Variable(np.full(3, hvd.rank(), np.float32), use_resource=True)
        second = tf.compat.v1.Variable(np.full(2, hvd.rank(), np.int32), use_resource=False)
        spread = hvd.broadcast_global_variables(hvd.size() - 1)
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(spread)
        one, two = session.run([first, second])
        same(one, np.full(3, hvd.size() - 1))
        same(two, np.full(2, hvd.size() - 1))


def check_the_hook_broadcasts_once_there_is_a_session() -> None:
    with tf.Graph().as_default():
        variable = tf.compat.v1.Variable(np.full(3, hvd.rank(), np.float32))
        step = tf.compat.v1.train.get_or_create_global_step()
        train = step.assign_add(1)
        hook = hvd.BroadcastGlobalVariablesHook(0)
        hooks = [hook, tf.compat.v1.train.StopAtStepHook(last_step=2)]
        with tf.compat.v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            same(session.run(variable), np.zeros(3))
            while not session.should_stop():
                session.run(train)
        assert hook.bcast_op.graph is tf.compat.v1.get_default_graph()


def check_objects() -> None:
    rank, n = hvd.rank(), hvd.size()
    assert hvd.broadcast_object({"epoch": rank}, root_rank=n - 1) == {"epoch": n - 1}
    assert hvd.broadcast_object_fn(0)(rank) == 0
    assert hvd.allgather_object([rank] * rank, name="lists") == [[r] * r for r in range(n)]
    with tf.Graph().as_default():
        assert hvd.broadcast_object(rank, 0, session=None) == 0
        assert hvd.allgather_object(rank, session=None) == list(range(n))


def check_variables_that_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="string"):
        hvd.broadcast_variables([tf.Variable("a")], 0)


def check_ranks_with_different_shapes_all_get_an_error() -> None:
    if hvd.size() > 1:
        with pytest.raises(hvd.HorovodInternalError, match="shape"):
            hvd.broadcast_variables([tf.Variable(tf.zeros(2 + hvd.rank() % 2))], 0)
