"""`consensus` and `consensus_distance`: what all workers' models are together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.basics import operation_name, process_set_id
from hvd_gossip.collectives import Average, Request

from .arrays import Array
from .mixing import ParameterMixing, mixing_strategies
from .variables import bare

AT_A_TIME = 16
"""Variables that are averaged side by side."""


@contextmanager
def consensus(model: Any) -> Iterator[None]:
    """Inside, the model is the exact average over all workers; after, each worker's own again, bit for bit.

    For evaluation and checkpoints. All floating weights are averaged, BatchNormalization's statistics among them; with
    `allreduce`, where trainable weights are equal already, that matters for the others. A collective: every rank enters, at
    a place of its own choosing, between two steps. (Not in Horovod.)

    Args:
        model: a Keras model, or whatever has `weights` or `variables`, or a sequence of variables.

    Raises:
        NotInitializedError: before `init()`. HorovodInternalError: a worker failed meanwhile. RuntimeError: inside another
            `consensus()` of the same variables, or not executing eagerly.
    """
    mixing, others = _divide(_variables_of(model))
    with ExitStack() as stack:
        for strategy in mixing:
            stack.enter_context(strategy.consensus())
        own = [variable.numpy() for variable in others]
        stack.callback(_assign, others, own)
        _assign(others, _means(own, _process_set_of(mixing)))
        yield


def consensus_distance(model: Any) -> float:
    """How far apart the workers' models are: sqrt of the mean over workers of ||x_i - mean||^2 over all trainable variables.

    A collective, as `consensus`; every rank gets the same value. (Not in Horovod.)
    """
    mixing, others = _divide(_variables_of(model, "trainable_variables"))
    squared = sum(strategy.consensus_distance() ** 2 for strategy in mixing)
    own = [variable.numpy() for variable in others]
    members = _process_set_of(mixing)
    pairs = zip(own, _means(own, members), strict=True)
    distance = sum(float(np.square(a.astype(np.float64) - b.astype(np.float64)).sum()) for a, b in pairs)
    (mean,) = _means([np.array([distance])], members)
    return math.sqrt(squared + float(mean[0]))


def _variables_of(model: Any, attribute: str = "weights") -> list[Any]:
    runtime.current()
    if not tf.executing_eagerly():
        raise RuntimeError("consensus of a model is taken between two steps, not inside of a graph")
    given = getattr(model, attribute, getattr(model, "variables", model))
    return [bare(variable) for variable in given]


def _divide(variables: Sequence[Any]) -> tuple[list[ParameterMixing], list[Any]]:
    """What mixes some of the variables, and the floating variables that none of that holds."""
    mixing = [one for one in mixing_strategies() if any(one.holds(variable) for variable in variables)]
    free = [variable for variable in variables if not any(one.holds(variable) for one in mixing)]
    return mixing, [variable for variable in free if variable.dtype.is_floating and variable.shape.num_elements()]


def _process_set_of(mixing: Sequence[ParameterMixing]) -> int:
    """The number of the process set in which the model is kept together."""
    return process_set_id(mixing[0].process_set) if mixing else 0


def _means(arrays: Sequence[Array], process_set: int) -> list[Array]:
    """The means over the workers that have not departed.

    In float64, so that the mean of equal values is that value, and a few at a time, so that this takes little memory.
    """
    means: list[Array] = []
    for start in range(0, len(arrays), AT_A_TIME):
        chosen = arrays[start : start + AT_A_TIME]
        handles = []
        for array in chosen:
            # A scalar variable's value is no array.
            name, wide = operation_name("consensus", None, process_set), np.array(array, dtype=np.float64)
            request = Request(name, "allreduce", wide, Average, output=wide, live_only=True, process_set=process_set)
            handles.append((runtime.current().submit(request), wide, array.dtype))
        for handle, wide, dtype in handles:
            handle.wait()
            means.append(wide.astype(dtype))
    return means


def _assign(variables: Sequence[Any], values: Sequence[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
