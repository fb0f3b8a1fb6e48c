"""Conditions and variables that work eagerly, inside `tf.function` and in graphs of tf.compat.v1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def either(condition: Any, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """`one()` where the condition holds, else `other()`; in a graph both are built and give the same types."""
    if tf.executing_eagerly():
        return one() if bool(condition) else other()
    return tf.cond(condition, one, other)


def operations(value: Any) -> list[Any]:
    """What must have run before the next operation: nothing eagerly, where it has."""
    return [] if value is None or tf.executing_eagerly() else [value]


def done(before: Sequence[Any]) -> Any:
    """True once the operations have run: what both branches of a condition can give."""
    with tf.control_dependencies([one for one in before if one is not None]):
        return tf.constant(True)


def make_variables(name: str, likes: Sequence[tuple[Any, Any]]) -> list[Any]:
    """Variables of zeros that are not trained.

    In a graph of tf.compat.v1 they belong to it, and `tf.compat.v1.global_variables_initializer()` initializes them; from
    inside `tf.function` they are made outside of it.

    Args:
        likes: shape and type of each.
    """

    def make() -> list[Any]:
        return [
            tf.Variable(tf.zeros(shape, dtype), trainable=False, name=f"{name}_{place}")
            for place, (shape, dtype) in enumerate(likes)
        ]

    if not tf.executing_eagerly() and not tf.compat.v1.get_default_graph().building_function:
        return make()
    with tf.init_scope():
        return make()
