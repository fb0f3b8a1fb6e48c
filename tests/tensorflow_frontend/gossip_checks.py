"""Checks of gossip with a tape and with optimizers of tf.compat.v1; run by test_gossip.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hvd_gossip.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from hvd_gossip import runtime
from tests.tensorflow_frontend.tensors import same

v1 = tf.compat.v1


def start() -> Any:
    """A variable with another value on every rank."""
    return tf.Variable(tf.fill([20_000], float(hvd.rank())))


def until_together(step: Callable[[], Any], value: Callable[[], float]) -> None:
    """Makes steps until the ranks' values are close to each other and to the mean of what they started from.

    An asynchronous algorithm exchanges when it can: how many steps that takes says nothing.
    """
    expected = (hvd.size() - 1) / 2
    for _ in range(1000):
        for _ in range(20):
            step()
        values = hvd.allgather_object(value())
        if max(abs(other - expected) for other in values) < 0.05 * hvd.size():
            return
    raise AssertionError(f"still apart: {values}")


def _together(run: Callable[[], Any], variable: Any) -> None:
    until_together(lambda: variable.assign_sub(run()[0]), lambda: float(variable[0]))


def check_what_a_tape_mixes_comes_together() -> None:
    for function in (False, True):
        variable = start()

        def step(variable: Any = variable) -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(variable) * 0.0
            return hvd.DistributedGradientTape(tape).gradient(loss, [variable])

        run = tf.function(step) if function else step
        _together(run, variable)
        same(variable, np.full(20_000, float(variable[0])), 1e-5)


def check_all_variables_of_a_tape_cross_at_once() -> None:
    variables = [tf.Variable(tf.ones(size)) for size in (1, 20_000, 3)]

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(variable) for variable in variables])
        return hvd.DistributedGradientTape(tape).gradient(loss, variables)

    operations = step.get_concrete_function().graph.get_operations()
    assert len([one for one in operations if one.type == "MapDataset"]) == 1


def check_a_tapes_gradients_stay_local() -> None:
    variable = tf.Variable(tf.ones(3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(variable) * (hvd.rank() + 1.0)
    same(hvd.DistributedGradientTape(tape).gradient(loss, variable), np.full(3, hvd.rank() + 1.0))


def check_training_with_a_tape_learns_everybodys_data() -> None:
    if runtime.current().config.algorithm == "adpsgd":
        return  # how far apart the ranks are depends on when they meet
    variable = tf.Variable(0.0)
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = (variable - float(hvd.rank())) ** 2
        tape = hvd.DistributedGradientTape(tape)
        variable.assign_sub(0.05 * tape.gradient(loss, variable))
    hvd.barrier()
    if hvd.size() == 1:
        assert abs(float(variable) - 0.0) < 1e-6
    assert abs(float(variable) - (hvd.size() - 1) / 2) < 0.6


def check_optimizers_in_sessions_and_eagerly() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        weight = v1.Variable(tf.fill([3], float(hvd.rank())), use_resource=True)
        count = v1.train.get_or_create_global_step()
        optimizer = hvd.DistributedOptimizer(v1.train.GradientDescentOptimizer(0.1))
        train = optimizer.minimize(tf.reduce_sum(weight) * 0.0, global_step=count)
        value = weight.read_value()
        session.run(v1.global_variables_initializer())
        until_together(lambda: session.run(train), lambda: float(session.run(value)[0]))
        assert session.run(count) % 20 == 0
    variable = start()
    optimizer = hvd.DistributedOptimizer(v1.train.GradientDescentOptimizer(0.1), backward_passes_per_step=2)
    until_together(
        lambda: optimizer.minimize(lambda: tf.reduce_sum(variable) * 0.0, var_list=[variable]),
        lambda: float(variable[0]),
    )


def check_one_dpsgd_step_is_what_its_mathematics_gives() -> None:
    if runtime.current().config.algorithm != "dpsgd":
        return
    n, rank = hvd.size(), hvd.rank()
    topology = runtime.current().make_topology(runtime.current().config)
    variable = tf.Variable(tf.fill([4], float(rank)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(variable) * (rank + 1.0)
    gradient = hvd.DistributedGradientTape(tape).gradient(loss, variable)
    weights = topology.in_weights(rank, 0)
    mixed = sum(weight * other for other, weight in weights.items() if other != rank)
    mixed += (1 - sum(weight for other, weight in weights.items() if other != rank)) * rank
    same(variable, np.full(4, mixed), 1e-6)
    same(gradient, np.full(4, rank + 1.0))
    assert n >= 1


def check_options_of_averaging_do_not_mean_anything() -> None:
    with pytest.raises(ValueError, match="no op but Average"):
        hvd.DistributedGradientTape(tf.GradientTape(), op=hvd.Sum)
    with pytest.warns(UserWarning, match="sparse_as_dense"):
        hvd.DistributedOptimizer(v1.train.GradientDescentOptimizer(0.1), sparse_as_dense=True)
