"""Checks of names, of the order of operations, and of what a graph makes of them."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf
from hvd_gossip.tensorflow import names
from hvd_gossip.tensorflow.arrays import aligned_like, as_array
from hvd_gossip.tensorflow.crossing import cross, take_failure

from tests.tensorflow_frontend.tensors import everybodys, in_session, ours, same, submitted


def check_names_in_a_function_are_those_of_its_tensors_and_stay() -> None:
    @tf.function
    def step(x: object, y: object) -> object:
        with tf.name_scope("scope"):
            first = hvd.allreduce(x)
        second = hvd.allreduce(x)
        third = hvd.allgather(y, name="mine")
        with tf.name_scope("scope"):
            fourth = hvd.broadcast(y, 0, name="scopeless", ignore_name_scope=True)
        return first, second, third, fourth

    expected = [
        "allreduce.scope/HorovodAllreduce_x_0",
        "allreduce.HorovodAllreduce_x_0",
        "allgather.mine",
        "broadcast.scopeless",
    ]
    assert submitted(step, ours(2), ours(3)) == expected
    assert submitted(step, ours(2), ours(3)) == expected
    assert submitted(step, ours(4), ours(3)) == expected  # traced anew, for another shape


def check_one_name_twice_in_a_function_becomes_two() -> None:
    @tf.function
    def step(x: object) -> object:
        return hvd.allreduce(x, name="same", op=hvd.Sum), hvd.allreduce(2 * x, name="same", op=hvd.Sum)

    assert submitted(step, ours(2)) == ["allreduce.same", "allreduce.same_1"]
    one, two = step(ours(2))
    same(one * 2, two)


def check_names_of_groups_gradients_and_eager_operations() -> None:
    x = ours(2)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(hvd.grouped_allgather([x, x], name="pair")[0])
    assert submitted(tape.gradient, loss, x)[0].startswith("grouped_allgather.pair.grad")
    assert submitted(hvd.allreduce, x, None, "", "", hvd.Compression.none, None, 1.0, 1.0, "given") == [
        "allreduce.given"
    ]
    (unnamed,) = submitted(hvd.allreduce, x)
    assert unnamed.startswith("allreduce.noname.")


def check_operations_of_a_function_run_in_the_order_of_the_program() -> None:
    """With one thread for operations (see tests/mpi.py) another order on another rank would never end."""

    @tf.function
    def inner(x: object) -> object:
        return hvd.allreduce(x, op=hvd.Sum, name="inner")

    @tf.function
    def step(x: object) -> object:
        results = [hvd.allreduce(x * i, op=hvd.Sum) for i in range(20)]
        results += [inner(x), inner(2 * x)]
        return tf.stack(results)

    order = submitted(step, ours(3))
    assert len(order) == 22
    assert submitted(step, ours(3)) == order
    total = everybodys(3).sum(0)
    same(step(ours(3)), np.stack([*(total * i for i in range(20)), total, 2 * total]))


def check_functions_and_conditions_that_use_variables() -> None:
    """TensorFlow orders these by their variables alone: they overlap with other operations, and nobody waits for ever."""
    variables = [tf.Variable(tf.zeros(3)) for _ in range(3)]

    def adding(variable: tf.Variable, name: str) -> Any:
        @tf.function
        def add(x: object) -> object:
            variable.assign_add(hvd.allreduce(x, op=hvd.Sum, name=name))
            return variable.read_value()

        return add

    functions = [adding(variable, f"nested {i}") for i, variable in enumerate(variables[:2])]

    @tf.function
    def step(x: object) -> object:
        results = []
        for i in range(6):
            results.append(hvd.allreduce(x * i, op=hvd.Sum))
            if i in (1, 2):
                results.append(functions[i - 1](x))
            if i == 3:
                inside = adding(variables[2], "condition")
                results.append(tf.cond(tf.reduce_sum(x) > -1.0, lambda f=inside: f(x), lambda: x))
        return tf.stack(results)

    total = everybodys(3).sum(0)
    for often in range(1, 6):
        nested = often * total
        same(
            step(ours(3)),
            np.stack([0 * total, total, nested, 2 * total, nested, 3 * total, nested, 4 * total, 5 * total]),
        )


def check_conditions_and_loops() -> None:
    @tf.function
    def step(x: object, often: object) -> object:
        if tf.reduce_sum(often) > 1:
            x = hvd.allreduce(x, op=hvd.Sum)
        for _ in tf.range(often):
            x = hvd.allreduce(x)
        return x

    for often in (1, 3):
        expected = everybodys(3).sum(0) if often > 1 else everybodys(3).mean(0)
        same(step(ours(3), tf.constant(often)), expected, 1e-6)


def check_independent_operations_of_a_session() -> None:
    """More of them than a session has threads."""
    results = in_session(lambda x: [hvd.allreduce(x * i, op=hvd.Sum) for i in range(30)], ours(3))
    for i, result in enumerate(results):
        same(result, everybodys(3).sum(0) * i)


def check_a_session_reports_what_failed() -> None:
    if hvd.size() == 1:
        return
    take_failure()
    with pytest.raises(tf.errors.OpError, match="HorovodInternalError"):
        in_session(lambda x: hvd.allreduce(x, name="session"), ours(2 + hvd.rank() % 2))
    assert isinstance(take_failure(), hvd.HorovodInternalError)
    assert take_failure() is None


def check_compiled_functions_are_refused_clearly() -> None:
    """horovod#2590: XLA's message about operations that it cannot compile."""

    def reduce(x: object) -> object:
        return hvd.allreduce(x)

    def inside(x: object) -> object:
        return tf.function(reduce)(x)

    for function in (reduce, inside):
        compiled = tf.function(function, jit_compile=True)
        for _ in range(2):
            with pytest.raises(NotImplementedError, match=f"jit_compile=False in tf.function .{function.__name__}"):
                compiled(ours(2))
    tape = tf.function(lambda: hvd.rank_op(), jit_compile=True)
    with pytest.raises(NotImplementedError, match="cannot be compiled by XLA"):
        tape()


def check_inputs_are_not_copied_for_a_function() -> None:
    seen = []

    def look(arrays: list[np.ndarray]) -> list[np.ndarray]:
        seen.append(arrays[0].ctypes.data)
        return [np.zeros(1, np.float32)]

    @tf.function
    def step(x: object) -> object:
        return cross(look, [x], [tf.TensorSpec([1])], "look")[0]

    tensor = tf.zeros(100_000)
    step(tensor)
    step(tensor)
    cross(look, [tensor], [tf.TensorSpec([1])], "look")
    assert len(set(seen)) == 1


def check_results_are_not_copied() -> None:
    made = []

    def make(_: object) -> list[np.ndarray]:
        made.append(aligned_like(np.empty(100_000, np.float32)))
        made[-1][:] = len(made)
        return made[-1:]

    def step() -> object:
        return cross(make, [], [tf.TensorSpec([100_000])], "make")[0]

    for run in (step, tf.function(step)):
        tensor = run()
        assert as_array(tensor).ctypes.data == made[-1].ctypes.data
        same(tensor, np.full(100_000, len(made)))


def check_clean_names() -> None:
    assert names.clean("loss of head 1") == "loss_of_head_1"
    assert names.clean("_x").startswith("hvd_x")
    assert names.normalized("a/b:0") == "a_b_0"
    result = tf.function(lambda x: hvd.allreduce(x, name="loss, head 1", op=hvd.Sum))(ours(2))
    same(result, everybodys(2).sum(0))


def check_a_failure_is_kept_once() -> None:
    def fail(_: object) -> list[np.ndarray]:
        raise ZeroDivisionError("on purpose")

    take_failure()
    with pytest.raises(ZeroDivisionError):
        cross(fail, [], [], "fail")
    assert take_failure() is None  # eagerly it is raised as it is
    with pytest.raises(tf.errors.OpError, match="on purpose"):
        tf.function(lambda x: cross(fail, [x], [tf.TensorSpec([])], "fail")[0])(1.0)
    assert isinstance(take_failure(), ZeroDivisionError)
