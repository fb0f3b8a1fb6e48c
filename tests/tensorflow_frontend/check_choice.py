"""`--algorithm auto` with a gradient tape, which averages and then mixes, and what must name an algorithm."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.errors import ConfigError
from tests.tensorflow_frontend.automatic import AVERAGED, automatic, chosen, in_force
from tests.tensorflow_frontend.tensors import same

v1 = tf.compat.v1
SIZE = 5


def gradients(variables: Any, unused: Any, **options: Any) -> Any:
    """A tape's gradients: dense ones that are this rank's number plus one, rows, and none."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(variables[0]) + tf.reduce_sum(tf.gather(variables[1], [hvd.rank()]))
        loss *= hvd.rank() + 1.0
    return hvd.DistributedGradientTape(tape, **options).gradient(loss, [*variables, unused])


def check_a_tape_averages_until_it_is_decided_and_then_mixes() -> None:
    mean = (hvd.size() + 1) / 2
    own = {"allreduce": mean, "adpsgd": hvd.rank() + 1.0}
    for function, sparse_as_dense in ((False, False), (True, False), (True, True)):
        with automatic():
            variables = [tf.Variable(tf.ones(SIZE)), tf.Variable(tf.ones([hvd.size(), 2]))]
            unused = tf.Variable(1.0)

            def step(given: Any = variables, unused: Any = unused, dense: Any = sparse_as_dense) -> Any:
                given_back = gradients(given, unused, sparse_as_dense=dense)
                assert given_back[2] is None
                return given_back[:2]

            run = tf.function(step) if function else step
            for number in range(AVERAGED + 2):
                dense, rows = run()
                assert in_force() == ("allreduce" if number < AVERAGED else chosen())
                same(dense, np.full(SIZE, own[in_force()]), 1e-6)
                assert isinstance(rows, tf.IndexedSlices) != sparse_as_dense
                expected = np.full((hvd.size(), 2), (np.arange(hvd.size()) + 1.0)[:, None] / hvd.size())
                if in_force() == "adpsgd":
                    expected = np.zeros((hvd.size(), 2))
                    expected[hvd.rank()] = hvd.rank() + 1.0
                same(tf.convert_to_tensor(rows), expected, 1e-6)
                variables[0].assign_sub(0.1 * dense)
            with hvd.consensus(variables):
                same(variables[0], np.full(SIZE, 1.0 - 0.1 * mean * (AVERAGED + 2)), 1e-5)


def check_a_tape_without_variables_follows_and_decides_nothing() -> None:
    with automatic():
        for _ in range(AVERAGED + 1):
            constant = tf.constant([1.0])
            with tf.GradientTape() as tape:
                tape.watch(constant)
                loss = tf.reduce_sum(constant) * (hvd.rank() + 1.0)
            same(hvd.DistributedGradientTape(tape).gradient(loss, constant), [(hvd.size() + 1) / 2], 1e-6)
        assert runtime.current().chooser is not None


def check_what_cannot_change_says_so() -> None:
    with automatic():
        with pytest.raises(ConfigError, match=r"'auto' is not there for optimizers of tf\.compat\.v1: name one"):
            hvd.DistributedOptimizer(v1.train.GradientDescentOptimizer(0.1))
        hvd.DistributedOptimizer(v1.train.GradientDescentOptimizer(0.1), op=hvd.Sum)
        with tf.Graph().as_default(), v1.Session(), tf.GradientTape() as tape:
            weight = v1.get_variable("weight", [3], use_resource=True)
            loss = tf.reduce_sum(weight)
            with pytest.raises(ConfigError, match=r"'auto' is not there for graphs of tf\.compat\.v1: name one"):
                hvd.DistributedGradientTape(tape).gradient(loss, weight)
