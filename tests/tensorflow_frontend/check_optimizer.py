"""Checks of DistributedOptimizer around optimizers of tf.compat.v1, in graphs and eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hvd_gossip.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from tests.tensorflow_frontend.tensors import Array, same

v1 = tf.compat.v1
STEPS = 4


def mean_of_ranks() -> float:
    """The mean over the ranks of rank + 1."""
    return sum(range(1, hvd.size() + 1)) / hvd.size()


def train_in_session(loss_of: Callable[[Any], Any], make: Callable[[], Any], steps: int = STEPS) -> tuple[Array, int]:
    """A variable of ones, and the global step, after steps of an optimizer in a session."""
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.Variable(tf.ones(3), use_resource=True, name="weight")
        count = v1.train.get_or_create_global_step()
        train = make().minimize(loss_of(variable), global_step=count)
        session.run(v1.global_variables_initializer())
        for _ in range(steps):
            session.run(train)
        weight, steps = session.run([variable, count])
        return weight, int(steps)


def train_eagerly(loss_of: Callable[[Any], Any], make: Callable[[], Any], steps: int = STEPS) -> tuple[Array, int]:
    """The same eagerly."""
    variable = tf.Variable(tf.ones(3), name="weight")
    count = v1.Variable(0, dtype=tf.int64, trainable=False)
    optimizer = make()
    for _ in range(steps):
        optimizer.minimize(lambda: loss_of(variable), global_step=count, var_list=[variable])
    return variable.numpy(), int(count.numpy())


WAYS = (train_in_session, train_eagerly)


def linear(variable: Any) -> Any:
    """A loss whose gradient is rank + 1."""
    return tf.reduce_sum(variable) * (hvd.rank() + 1.0)


def sgd(**options: Any) -> Callable[[], Any]:
    """Makes a distributed gradient descent of rate 0.1."""
    return lambda: hvd.DistributedOptimizer(v1.train.GradientDescentOptimizer(0.1), **options)


def check_gradients_are_averaged() -> None:
    for train in WAYS:
        weight, count = train(linear, sgd())
        same(weight, np.full(3, 1 - 0.1 * STEPS * mean_of_ranks()), 1e-5)
        assert count == STEPS
        weight, _ = train(linear, sgd(op=hvd.Sum))
        same(weight, np.full(3, 1 - 0.1 * STEPS * mean_of_ranks() * hvd.size()), 1e-5)
        weight, _ = train(linear, sgd(gradient_predivide_factor=2.0, compression=hvd.Compression.fp16, groups=1))
        same(weight, np.full(3, 1 - 0.1 * STEPS * mean_of_ranks()), 1e-3)


def check_inside_a_function() -> None:
    variable = tf.Variable(tf.ones(3))
    optimizer = hvd.DistributedOptimizer(v1.train.MomentumOptimizer(0.1, 0.5), backward_passes_per_step=2)

    @tf.function
    def step() -> None:
        pairs = optimizer.compute_gradients(lambda: linear(variable), var_list=[variable])
        optimizer.apply_gradients(pairs)

    expected, momentum = 1.0, 0.0
    for passes in range(1, 7):
        step()
        if passes % 2 == 0:
            momentum = 0.5 * momentum + 2 * mean_of_ranks()
            expected -= 0.1 * momentum
        same(variable, np.full(3, expected), 1e-5)


def check_state_is_the_wrapped_optimizers() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.Variable(tf.ones(3))
        plain = v1.train.MomentumOptimizer(0.1, 0.9)
        optimizer = hvd.DistributedOptimizer(plain)
        assert isinstance(optimizer, v1.train.Optimizer)
        train = optimizer.minimize(linear(variable))
        session.run(v1.global_variables_initializer())
        session.run(train)
        assert optimizer.get_slot_names() == ["momentum"]
        assert optimizer.get_slot(variable, "momentum") is plain.get_slot(variable, "momentum")
        assert optimizer.variables() == plain.variables()
        same(session.run(optimizer.get_slot(variable, "momentum")), np.full(3, mean_of_ranks()), 1e-6)
        assert optimizer.get_name() == "DistributedMomentumOptimizer"


def check_backward_passes_per_step() -> None:
    """horovod#1661, #1676: how often is reduced, and whether sums or means are applied, was not to be told."""
    for train in WAYS:
        for passes in (1, 2, 3):
            for average, factor in ((False, passes), (True, 1)):
                options = {"backward_passes_per_step": passes, "average_aggregated_gradients": average}
                weight, count = train(linear, sgd(**options), steps=7)
                updates = 7 // passes
                same(weight, np.full(3, 1 - 0.1 * updates * factor * mean_of_ranks()), 1e-5)
                assert count == 7
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="backward_passes_per_step"):
            sgd(backward_passes_per_step=wrong)()


def check_rows() -> None:
    def looked_up(variable: Any) -> Any:
        return tf.reduce_sum(tf.gather(variable, [0, 2])) * (hvd.rank() + 1.0)

    expected = 1 - 0.1 * STEPS * mean_of_ranks() * np.array([1, 0, 1])
    for train in WAYS:
        for dense in (False, True):
            same(train(looked_up, sgd(sparse_as_dense=dense))[0], expected, 1e-5)
        # horovod#2806: the two together were an error.
        same(train(looked_up, sgd(sparse_as_dense=True, backward_passes_per_step=2))[0], expected, 1e-5)
        with pytest.raises(ValueError, match="IndexedSlices are not supported"):
            train(looked_up, sgd(backward_passes_per_step=2))


def check_local_variables() -> None:
    for scale, factor in ((True, 1 / hvd.size()), (False, 1.0)):
        shared, own = tf.Variable(1.0), tf.Variable(1.0)
        optimizer = sgd(scale_local_gradients=scale)()
        optimizer.register_local_var(own)
        optimizer.minimize(lambda s=shared, o=own: linear(s) + linear(o), var_list=[shared, own])
        same(shared, 1 - 0.1 * mean_of_ranks(), 1e-6)
        same(own, 1 - 0.1 * (hvd.rank() + 1) * factor, 1e-6)


def check_adasum_combines_what_the_steps_change() -> None:
    n = hvd.size()
    if n not in (1, 2, 4):
        with pytest.raises(NotImplementedError, match="power of 2"):
            sgd(op=hvd.Adasum)()
        return

    def apart(variable: Any) -> Any:  # the ranks' deltas are orthogonal up to 3 ranks, and Adasum adds those
        return tf.reduce_sum(variable * tf.one_hot(hvd.rank(), 3))

    for train in WAYS:
        for passes in (1, 2):
            weight, _ = train(apart, sgd(op=hvd.Adasum, backward_passes_per_step=passes))
            if n <= 2:
                same(weight, 1 - 0.1 * STEPS * np.eye(3)[:n].sum(0), 1e-5)
        weight, _ = train(lambda v: tf.reduce_sum(v), sgd(op=hvd.Adasum))
        same(weight, np.full(3, 1 - 0.1 * STEPS), 1e-5)  # equal deltas: their average


def check_options_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="average_aggregated_gradients"):
        sgd(op=hvd.Adasum, average_aggregated_gradients=True)()
    with pytest.raises(ValueError, match="doesn't inherit"):
        hvd.DistributedOptimizer(object())
    with pytest.raises(ValueError, match="gradient_predivide_factor"):
        sgd(op=hvd.Sum, gradient_predivide_factor=2.0)()
    with pytest.raises(NotImplementedError, match="Adasum"):
        sgd(op=hvd.Adasum, process_set=hvd.ProcessSet([0]))()


def check_a_monitored_session() -> None:
    with tf.Graph().as_default():
        count = v1.train.get_or_create_global_step()
        variable = v1.Variable(tf.fill([2], float(hvd.rank())))
        train = sgd()().minimize(linear(variable), global_step=count)
        weight = variable.read_value()
        hooks = [hvd.BroadcastGlobalVariablesHook(0), v1.train.StopAtStepHook(last_step=3)]
        with v1.train.MonitoredTrainingSession(hooks=hooks) as session:
            while not session.should_stop():
                _, value = session.run([train, weight])
        assert hvd.allgather_object(value.tolist()) == [value.tolist()] * hvd.size()
