"""Checks of DistributedGradientTape and PartialDistributedGradientTape."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tensorflow_frontend.tensors import same, submitted


def mean_of_ranks() -> float:
    """The mean over the ranks of rank + 1."""
    return sum(range(1, hvd.size() + 1)) / hvd.size()


def gradients_of(sources: Any, **options: Any) -> Any:
    """The reduced gradients of (rank + 1) * sum of the sources' squares / 2."""
    with tf.GradientTape() as tape:
        flat = tf.nest.flatten(sources)
        loss = (hvd.rank() + 1.0) * tf.add_n([tf.cast(tf.reduce_sum(one * one), tf.float32) / 2 for one in flat])
    return hvd.DistributedGradientTape(tape, **options).gradient(loss, sources)


def check_gradients_are_averages_eagerly_and_in_functions() -> None:
    variables = [tf.Variable([1.0, 2.0]), tf.Variable(np.arange(30_000, dtype=np.float32))]
    for compute in (gradients_of, tf.function(gradients_of)):
        for _ in range(2):
            for gradient, variable in zip(compute(variables), variables, strict=True):
                same(gradient, variable.numpy() * mean_of_ranks(), 1e-6)


def check_structures_of_sources() -> None:
    variable = tf.Variable([1.0, 2.0])
    same(gradients_of(variable), variable.numpy() * mean_of_ranks(), 1e-6)
    nested = gradients_of({"a": variable, "b": [tf.Variable(3.0)]})
    same(nested["a"], variable.numpy() * mean_of_ranks(), 1e-6)
    same(nested["b"][0], 3 * mean_of_ranks(), 1e-6)


def check_it_is_a_tape_that_records() -> None:
    variable = tf.Variable([1.0, 2.0])
    with hvd.DistributedGradientTape(tf.GradientTape(persistent=True)) as tape:
        loss = (hvd.rank() + 1.0) * tf.reduce_sum(variable)
    assert isinstance(tape, tf.GradientTape)
    assert tape.watched_variables() == (variable,)
    for _ in range(2):
        same(tape.gradient(loss, [variable])[0], np.full(2, mean_of_ranks()), 1e-6)
    assert hvd.DistributedGradientTape(tape).gradient(loss, [variable])[0].shape == (2,)


def check_all_gradients_cross_at_once() -> None:
    variables = [tf.Variable(tf.ones(size)) for size in (1, 2, 3, 40_000, 4)]
    crossings = []

    @tf.function
    def compute() -> Any:
        gradients = gradients_of(variables)
        crossings.extend(op for op in tf.compat.v1.get_default_graph().get_operations() if op.type == "MapDataset")
        return gradients

    same(compute()[3], np.full(40_000, mean_of_ranks()), 1e-6)
    assert len(crossings) == (1 if hvd.size() > 1 else 0)


def check_missing_gradients_stay_missing() -> None:
    used, unused = tf.Variable(2.0), tf.Variable(3.0)
    with tf.GradientTape() as tape:
        loss = used * used
    tape = hvd.DistributedGradientTape(tape)
    first, second = tape.gradient(loss, [unused, used])
    assert first is None
    same(second, 4.0, 1e-6)


def check_rows() -> None:
    table = tf.Variable(tf.ones((4, 2)))
    for dense in (False, True):
        with tf.GradientTape() as tape:
            loss = (hvd.rank() + 1.0) * tf.reduce_sum(tf.gather(table, [0, hvd.rank() % 4]))
        gradient = hvd.DistributedGradientTape(tape, sparse_as_dense=dense).gradient(loss, table)
        assert isinstance(gradient, tf.IndexedSlices) != dense or (hvd.size() == 1 and not dense)
        expected = np.zeros((4, 2))
        for rank in range(hvd.size()):
            expected[0] += rank + 1
            expected[rank % 4] += rank + 1
        same(tf.convert_to_tensor(gradient), expected / hvd.size(), 1e-6)


def check_options() -> None:
    variable = tf.Variable(tf.range(6.0))
    total = variable.numpy() * mean_of_ranks() * hvd.size()
    alone = hvd.size() == 1
    same(gradients_of(variable, op=hvd.Sum), total, 1e-6)
    same(gradients_of(variable, op=hvd.Max), variable.numpy() * hvd.size(), 1e-6)
    same(gradients_of(variable, gradient_predivide_factor=2.0), total / hvd.size(), 1e-6)
    same(gradients_of(variable, compression=hvd.Compression.fp16), total / hvd.size(), 1e-3)
    pair = [variable, tf.Variable([1.0]), tf.Variable([2.0])]
    for groups in (1, 2, [[pair[1], pair[0]]], [[pair[2]]]):
        for gradient, one in zip(gradients_of(pair, groups=groups), pair, strict=True):
            same(gradient, one.numpy() * mean_of_ranks(), 1e-6)
    with pytest.warns(DeprecationWarning, match="num_groups"):
        same(gradients_of(variable, num_groups=1), total / hvd.size(), 1e-6)
    with pytest.raises(ValueError, match="gradient_predivide_factor not supported"):
        gradients_of(variable, op=hvd.Sum, gradient_predivide_factor=2.0)
    for wrong in (-1, "x", [variable], [[variable], [variable]]):
        with pytest.raises(ValueError, match=r"groups|once"):
            gradients_of(variable, groups=wrong)
    if hvd.size() in (2, 4):
        same(gradients_of(tf.Variable([3.0]), op=hvd.Adasum).shape, (1,))
    assert alone == hvd.DistributedGradientTape(tf.GradientTape())._hvd_averaging.alone


def check_names_of_gradients() -> None:
    """By place: what variables are called may differ between ranks."""
    if hvd.size() == 1:
        return
    names = submitted(gradients_of, [tf.Variable(1.0, name="weight")])
    assert names == ["allreduce.DistributedGradientTape_Allreduce/0_1"]


def check_local_sources() -> None:
    shared, own = tf.Variable(1.0), tf.Variable(1.0)
    for scale, factor in ((True, 1.0 / hvd.size()), (False, 1.0)):
        with tf.GradientTape() as tape:
            loss = (hvd.rank() + 1.0) * (shared + own)
        tape = hvd.DistributedGradientTape(tape, scale_local_gradients=scale)
        tape.register_local_source(own)
        first, second = tape.gradient(loss, [own, shared])
        same(first, (hvd.rank() + 1.0) * factor, 1e-6)
        same(second, mean_of_ranks(), 1e-6)


def check_local_layers() -> None:
    shared, own = keras.layers.Dense(2, kernel_initializer="ones"), keras.layers.Dense(2, kernel_initializer="ones")
    inputs = tf.ones((1, 2)) * (hvd.rank() + 1.0)
    own.build((1, 2))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(shared(inputs)) + tf.reduce_sum(own(inputs))
    tape = hvd.PartialDistributedGradientTape(tape, local_layers=own)
    gradients = tape.gradient(loss, [shared.kernel.value, own.kernel.value])
    same(gradients[0], np.full((2, 2), mean_of_ranks()), 1e-6)
    same(gradients[1], np.full((2, 2), (hvd.rank() + 1.0) / hvd.size()), 1e-6)
    with pytest.raises(ValueError, match="All local layers must be"):
        hvd.PartialDistributedGradientTape(tf.GradientTape(), local_layers=[3])


def check_process_sets() -> None:
    n, rank = hvd.size(), hvd.rank()
    if n == 1:
        return
    members = hvd.add_process_set([0])
    same(gradients_of(tf.Variable(1.0), process_set=members), rank + 1.0)
    hvd.remove_process_set(members)
    if n > 2:
        members = hvd.add_process_set([0, n - 1])
        expected = (1 + n) / 2 if rank in (0, n - 1) else rank + 1.0
        same(gradients_of(tf.Variable(1.0), process_set=members), expected, 1e-6)
        hvd.remove_process_set(members)
    with pytest.raises(NotImplementedError, match="Adasum"):
        gradients_of(tf.Variable(1.0), op=hvd.Adasum, process_set=hvd.ProcessSet([0]))
