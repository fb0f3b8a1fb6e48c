"""Names of operations: equal on all ranks, the same at each call, and the same when a function is traced anew."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf

from .variables import label_of


def operation(kind: str, tensor: Any, name: str | None, ignore_name_scope: bool = False) -> str | None:
    """The name under which ranks find each other (Horovod's rule).

    Eagerly it is the given name; None means that the runtime numbers it. In a graph it is the name of the graph's operation,
    scopes included: the given one or HorovodAllreduce_<name of the tensor>, made unique as TensorFlow does.

    Args:
        kind: "Allreduce", "Allgather"...
        tensor: the first of the operation's, a tensor; None for operations without.
        ignore_name_scope: leave out the scopes around.
    """
    if tf.executing_eagerly():
        return name
    own = name if name is not None else default(kind, tensor)
    if ignore_name_scope:
        return own
    unique: str = tf.compat.v1.get_default_graph().unique_name(clean(own), mark_as_used=False)
    return unique


def default(kind: str, tensor: Any) -> str:
    """Horovod's name in a graph of an operation that has none."""
    return f"Horovod{kind}" + ("" if tensor is None else f"_{normalized(tensor.name)}")


def of_variable(place: int, variable: Any) -> str:
    """What tells the operation on one of several variables from the others': its place among them.

    In a graph of tf.compat.v1, whose operations run in any order, its name as well. Elsewhere that is left out: variables of a
    model that was loaded are called otherwise than those of one that was built, as where rank 0 reads a checkpoint.
    """
    if tf.executing_eagerly() or tf.compat.v1.get_default_graph().building_function:
        return str(place)
    return f"{place}_{normalized(label_of(variable))}"


def in_graph(full: str) -> str:
    """What to call the graph's operation of a call's full name: TensorFlow puts the present scopes before it itself."""
    name = full.partition(".")[2]
    if tf.executing_eagerly():
        return name
    return clean(name.removeprefix(f"{tf.compat.v1.get_default_graph().get_name_scope()}/"))


def normalized(name: str) -> str:
    """A tensor's name with nothing but letters, digits and underscores."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def clean(name: str) -> str:
    """A name that TensorFlow allows."""
    allowed = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", name)
    return allowed if re.match(r"[A-Za-z0-9.]", allowed) else f"hvd{allowed}"
