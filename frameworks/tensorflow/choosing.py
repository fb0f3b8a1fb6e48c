"""`--algorithm auto` for steps that may be graphs, which are traced once: both ways are in them, and a variable says which to go.

Only until it is decided does this cost a crossing of its own in each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.algorithms.registry import find_algorithm

from .arrays import Array
from .control import done, either, make_variables
from .crossing import cross
from .variables import bare

R = TypeVar("R")


class Choice:
    """Whether a step averages gradients or mixes variables: averages, until `runtime.choose` has decided for gossip.

    Args:
        name: of the crossing in the graph.
        variables: what would be mixed.
    """

    def __init__(self, name: str, variables: Sequence[Any]) -> None:
        self._name = name
        shapes = [(bare(variable).shape.num_elements(), bare(variable).dtype.size) for variable in variables]
        self._nbytes = sum(count * size for count, size in shapes)
        self._decided, self._mixes = make_variables("hvd_choice", [((), tf.bool), ((), tf.bool)])

    def follow(self, gradients: Sequence[Any]) -> None:
        """Once a step, before its gradients are used: decides, all ranks in the same step, when enough steps are measured.

        Args:
            gradients: None, tensors or tf.IndexedSlices.
        """
        tensors = [one for one in tf.nest.flatten(list(gradients), expand_composites=True) if one is not None]
        # They depend on all that the steps before have done to the variables. Nothing else brings this after those steps.
        with tf.control_dependencies(tensors):
            either(self._decided.read_value(), lambda: done([]), self._ask)

    def either(self, mixing: Callable[[], R], averaging: Callable[[], R]) -> R:
        """`mixing()` once gossip is chosen, else `averaging()`; in a graph both are built and give the same types."""
        result: R = either(self._mixes.read_value(), mixing, averaging)
        return result

    def reduce(
        self, gradients: Sequence[Any], mixing: Callable[[], list[Any]], averaging: Callable[[], list[Any]]
    ) -> list[Any]:
        """As `either`, for functions that give one result a gradient, None for None."""
        results = iter(self.either(lambda: _present(mixing()), lambda: _present(averaging())))
        return [None if gradient is None else next(results) for gradient in gradients]

    def _ask(self) -> Any:
        scalar = tf.TensorSpec([], tf.bool)
        decided, mixes = cross(self._decide, [], [scalar, scalar], self._name)
        assigned = [self._decided.assign(decided, read_value=False), self._mixes.assign(mixes, read_value=False)]
        return done(assigned)

    def _decide(self, _: list[Array]) -> list[Array]:
        now = runtime.current()
        if self._nbytes:
            now.choose(self._nbytes)
        mixes = find_algorithm(now.config.algorithm).averages == "parameters"
        return [np.array(now.chooser is None), np.array(mixes)]


def _present(gradients: Sequence[Any]) -> list[Any]:
    return [gradient for gradient in gradients if gradient is not None]
