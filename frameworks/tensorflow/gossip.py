"""Gossip for those who only see gradients: a tape knows which variables there are, but not when they are updated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.choice.chooser import refuse_undecided
from hvd_gossip.gradient_options import check_mixing
from hvd_gossip.process_sets import UNKNOWN
from hvd_gossip.runtime import Runtime

from .averaging import GradientAveraging
from .mixing import ParameterMixing
from .variables import bare

TUNING = ("compression", "gradient_predivide_factor", "groups", "sparse_as_dense")
"""Options that tune the averaging of gradients."""


def mixes(averaging: GradientAveraging) -> bool:
    """Whether the configured algorithm mixes variables, rather than averages gradients, on this rank.

    Raises:
        NotInitializedError: before `init()`. ValueError: the options contradict the algorithm, or the process set is not
            registered.
    """
    refuse_undecided(runtime.current().chooser, "TensorFlow")
    algorithm = find_algorithm(runtime.current().config.algorithm)
    if averaging.process_set.process_set_id is None:
        raise ValueError(UNKNOWN)
    if algorithm.averages == "gradients" or not averaging.process_set.included():
        return False
    default = GradientAveraging("")
    idle = [name for name in TUNING if getattr(averaging, name) != getattr(default, name)]
    check_mixing(algorithm.name, averaging.op, idle, 4)
    return True


class TapeMixings:
    """The variables that tapes have been asked for, and what mixes them, until the runtime shuts down.

    A tape lives for one step; what mixes variables goes on from step to step.
    """

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._mixings: dict[tuple[int, ...], ParameterMixing] = {}

    def step(self, sources: Sequence[Any], averaging: GradientAveraging) -> None:
        """Mixes the floating, trainable variables among the sources; what was done to them since the last step is a step's
        update."""
        variables = [source for source in sources if _is_mixed(source)]
        if variables:
            self._of(variables, averaging).step_since(f"HvdGossip_{averaging.name}")

    def _of(self, variables: Sequence[Any], averaging: GradientAveraging) -> ParameterMixing:
        now = runtime.current()
        if self._runtime is not now:
            self._runtime, self._mixings = now, {}
        key = (averaging.process_set.process_set_id or 0, *(id(bare(variable)) for variable in variables))
        if key not in self._mixings:
            self._mixings[key] = ParameterMixing(variables, averaging.process_set)
        return self._mixings[key]


def _is_mixed(source: Any) -> bool:
    variable = bare(source)
    return isinstance(variable, tf.Variable) and bool(variable.trainable) and variable.dtype.is_floating
