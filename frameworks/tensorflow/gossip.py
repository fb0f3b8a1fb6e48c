"""Gossip for those who only see gradients: a tape knows which variables there are, but not when they are updated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.choice.chooser import refuse_undecided
from hvd_gossip.gradient_options import check_mixing, follows_choice
from hvd_gossip.process_sets import UNKNOWN
from hvd_gossip.runtime import Runtime

from .averaging import GradientAveraging
from .choosing import Choice
from .mixing import ParameterMixing
from .variables import bare

TUNING = ("compression", "gradient_predivide_factor", "groups", "sparse_as_dense")
"""Options that tune the averaging of gradients."""


def undecided(averaging: GradientAveraging) -> bool:
    """Whether `--algorithm auto` has yet to decide whether these gradients are averaged or variables mixed."""
    return follows_choice(averaging.op, averaging.process_set) and runtime.current().chooser is not None


def mixes(averaging: GradientAveraging) -> bool:
    """Whether the configured algorithm mixes variables, rather than averages gradients, on this rank: with `auto` the one until
    it is decided.

    Raises:
        NotInitializedError: before `init()`. ValueError: the options contradict the algorithm, or the process set is not
            registered.
    """
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
        self._choices: dict[ParameterMixing | None, Choice] = {}

    def choice(self, sources: Sequence[Any], averaging: GradientAveraging) -> Choice:
        """What decides, with `--algorithm auto`, whether `step` is to be called.

        Raises:
            ConfigError: in a graph of tf.compat.v1.
        """
        if not tf.compat.v1.executing_eagerly_outside_functions():
            refuse_undecided(runtime.current().chooser, "graphs of tf.compat.v1")
        self._follow_runtime()
        variables = [source for source in sources if _is_mixed(source)]
        mixing = self._of(variables, averaging) if variables else None
        if mixing not in self._choices:
            self._choices[mixing] = Choice(f"HvdGossip_{averaging.name}_auto", variables)
        return self._choices[mixing]

    def step(self, sources: Sequence[Any], averaging: GradientAveraging) -> None:
        """Mixes the floating, trainable variables among the sources; what was done to them since the last step is a step's
        update."""
        variables = [source for source in sources if _is_mixed(source)]
        if variables:
            self._of(variables, averaging).step_since(f"HvdGossip_{averaging.name}")

    def _of(self, variables: Sequence[Any], averaging: GradientAveraging) -> ParameterMixing:
        self._follow_runtime()
        key = (averaging.process_set.process_set_id or 0, *(id(bare(variable)) for variable in variables))
        if key not in self._mixings:
            self._mixings[key] = ParameterMixing(variables, averaging.process_set)
        return self._mixings[key]

    def _follow_runtime(self) -> None:
        if self._runtime is not runtime.current():
            self._runtime, self._mixings, self._choices = runtime.current(), {}, {}


def _is_mixed(source: Any) -> bool:
    variable = bare(source)
    return isinstance(variable, tf.Variable) and bool(variable.trainable) and variable.dtype.is_floating
