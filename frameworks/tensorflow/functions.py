"""Giving every rank the root's state at the start of a run, and Python objects (Horovod's functions)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip import objects
from hvd_gossip.basics import ProcessSet, global_process_set, operation_name, process_set_id
from hvd_gossip.calls import Call

from .api import public
from .arrays import Array, check_type
from .crossing import cross
from .mixing import overwriting
from .names import of_variable
from .submit import carry_out_all, like
from .variables import bare


@public
def broadcast_variables(
    variables: Iterable[Any],
    root_rank: int,
    process_set: ProcessSet = global_process_set,
    inplace: bool = False,
) -> Any:
    """Overwrites variables with the root's.

    Args:
        variables: tf.Variable or keras.Variable, of the same types and shapes in the same order on every rank.
        root_rank: whose values; a global rank.
        process_set: the ranks that take part.
        inplace: as in Horovod, where it saves memory; nothing is kept here either way.

    Returns:
        Eagerly None, when it is done; in a graph the operation that does it.

    Raises:
        ValueError: types that cannot be communicated. HorovodInternalError: types or shapes differ between ranks.
    """
    assigned = broadcast_(list(variables), root_rank, process_set=process_set)
    return None if tf.executing_eagerly() else tf.group(*assigned)


@public
def broadcast_(
    variables: Sequence[Any],
    root_rank: int,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> list[Any]:
    """Overwrites variables with the root's, all in one crossing, and returns them; in a graph their assignments.

    Args:
        name: names the operation.

    The other arguments are those of `broadcast_variables`.
    """
    if not variables:
        return []
    targets = [bare(variable) for variable in variables]
    values = [tf.convert_to_tensor(variable) for variable in targets]
    for value in values:
        check_type(value)
    prefix = name or "HorovodBroadcastVariables"
    calls = [_call(prefix, *place, root_rank, process_set) for place in enumerate(targets)]

    def run(arrays: list[Array]) -> list[Array]:
        with overwriting(targets) as overwrite:
            results = carry_out_all([(call, [array]) for call, array in zip(calls, arrays, strict=True)])
            given = [result.output for (result,) in results]
            overwrite(given)
        return given

    outputs = cross(run, values, [like(value) for value in values], prefix)
    assigned = [target.assign(output) for target, output in zip(targets, outputs, strict=True)]
    return list(variables) if tf.executing_eagerly() else assigned


def broadcast_global_variables(root_rank: int) -> Any:
    """The operation of a tf.compat.v1 graph that overwrites all its global variables with the root's.

    Raises:
        RuntimeError: eagerly, where there are no global variables.
    """
    if tf.executing_eagerly():
        raise RuntimeError(
            "hvd.broadcast_global_variables() does not support eager execution. "
            "Please use `hvd.broadcast_variables(<model/optimizer variables>)` instead."
        )
    return broadcast_variables(tf.compat.v1.global_variables(), root_rank)


class BroadcastGlobalVariablesHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Session hook that overwrites all global variables with the root's once the session exists: after they are initialized or
    restored from a checkpoint.

    Args:
        root_rank: whose values.
        device: as in Horovod; data cross the boundary of the graph on the host.
    """

    def __init__(self, root_rank: int, device: str = "") -> None:
        super().__init__()
        self.root_rank = root_rank
        self.device = device
        self.bcast_op: Any = None

    def begin(self) -> None:
        if self.bcast_op is None or self.bcast_op.graph is not tf.compat.v1.get_default_graph():
            with tf.device(self.device):
                self.bcast_op = broadcast_global_variables(self.root_rank)

    def after_create_session(self, session: Any, coord: Any) -> None:
        session.run(self.bcast_op)


def broadcast_object(
    obj: Any,
    root_rank: int = 0,
    session: Any = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Gives every rank the root's object; see `hvd_gossip.objects.broadcast_object`.

    Args:
        session: as in Horovod; no session is needed here, also where execution is not eager.
    """
    return objects.broadcast_object(obj, root_rank, name, process_set)


def broadcast_object_fn(
    root_rank: int = 0, session: Any = None, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Callable[[Any], Any]:
    """`broadcast_object` as a function of the object alone."""
    return lambda obj: broadcast_object(obj, root_rank, session, name, process_set)


def allgather_object(
    obj: Any, session: Any = None, name: str | None = None, process_set: ProcessSet = global_process_set
) -> list[Any]:
    """Every member's object, in the order of ranks; see `hvd_gossip.objects.allgather_object`.

    Args:
        session: as for `broadcast_object`.
    """
    return objects.allgather_object(obj, name, process_set)


def _call(prefix: str, place: int, variable: Any, root_rank: int, process_set: ProcessSet) -> Call:
    name = operation_name("broadcast", f"{prefix}/{of_variable(place, variable)}")
    return Call("broadcast", name, {"process_set": process_set_id(process_set), "root_rank": root_rank})
