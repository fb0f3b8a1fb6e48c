"""What a distributed Keras optimizer delegates to: one of two ways of keeping replicas together, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip import runtime
from hvd_gossip.collectives import Min

from .. import reduce_ops
from ..averaging import GradientAveraging
from ..choosing import Choice
from ..control import done
from ..local import LocalVariables
from ..meter import Meter
from ..mixing import ParameterMixing
from .options import Options


class Averaging:
    """The strategy of algorithm `allreduce`.

    Args:
        name: of the optimizer.
        local: variables whose gradients stay local.

    Attributes:
        mixing: what mixes variables, if anything does.
    """

    mixing: ParameterMixing | None = None

    def __init__(self, name: str, options: Options, local: LocalVariables) -> None:
        self._local = local
        self._average = GradientAveraging(
            name,
            options.compression,
            options.sparse_as_dense,
            options.op,
            options.gradient_predivide_factor,
            options.groups,
            options.process_set,
            Meter(),
        )

    def reduce(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        """What is to be applied, of the gradients of a step: one a variable, None where there is none."""
        return self._local.reduce_others(self._average, gradients, variables)

    def prepared(self, gradients: Sequence[Any]) -> list[Any]:
        """The gradients in the types that `reduce` gives."""
        return self._average.prepared(gradients)

    def step(self, update: Callable[[], None]) -> None:
        """Calls `update`, which changes the variables."""
        update()

    def agree(self, finite: Any) -> Any:
        """Whether all ranks' gradients are finite: they are averaged, or not, by all ranks alike. A scalar tensor."""
        if self._average.alone:
            return finite
        members = self._average.process_set
        name = f"{self._average.name}.finite"
        return reduce_ops.allreduce(tf.cast(finite, tf.int32), op=Min, name=name, process_set=members) > 0


class Mixing:
    """The strategy of every gossip algorithm: gradients stay local, the variables are mixed after the update.

    Args:
        variables: all that the optimizer updates; those that are local are left alone.
    """

    def __init__(self, name: str, options: Options, local: LocalVariables, variables: Sequence[Any]) -> None:
        self._name, self._local = f"HvdGossip_{name}", local
        mixed = [variable for variable in variables if not local.holds(variable)]
        self.mixing = ParameterMixing(mixed, options.process_set, options.settings)

    def reduce(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        return self._local.reduce_others(lambda others, _: list(others), gradients, variables)

    def step(self, update: Callable[[], None]) -> None:
        before = self.mixing.read()
        update()
        self.mixing.step(before, self._name)

    def agree(self, finite: Any) -> Any:
        """Whether this rank's own gradients are finite."""
        return finite


class Deciding:
    """The strategy of `--algorithm auto` until it is decided, and then on: averages, and mixes if gossip is chosen.

    Arguments as for Mixing.
    """

    def __init__(self, name: str, options: Options, local: LocalVariables, variables: Sequence[Any]) -> None:
        self._averaging = Averaging(name, options, local)
        self._mixing = Mixing(name, options, local, variables)
        self.mixing = self._mixing.mixing
        self._choice = Choice(f"HvdGossip_{name}_auto", self.mixing.variables)

    def reduce(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        given = self._averaging.prepared(gradients)
        self._choice.follow(given)
        return self._choice.reduce(
            given, lambda: self._mixing.reduce(given, variables), lambda: self._averaging.reduce(given, variables)
        )

    def step(self, update: Callable[[], None]) -> None:
        def mixing() -> Any:
            self._mixing.step(update)
            return done([])

        def averaging() -> Any:
            self._averaging.step(update)
            return done([])

        self._choice.either(mixing, averaging)

    def agree(self, finite: Any) -> Any:
        return self._choice.either(lambda: self._mixing.agree(finite), lambda: self._averaging.agree(finite))


Strategy = Averaging | Mixing | Deciding


def make_strategy(name: str, options: Options, local: LocalVariables, variables: Sequence[Any]) -> Strategy:
    """The strategy that the options ask for, or, where `--algorithm auto` is not decided yet, follow.

    Raises:
        NotInitializedError, ConfigError, ValueError: see `Options.algorithm`.
    """
    averages = options.algorithm().averages == "gradients"
    if options.follows_choice and runtime.current().chooser is not None:
        return Deciding(name, options, local, variables)
    if averages or not options.process_set.included():
        return Averaging(name, options, local)
    return Mixing(name, options, local, variables)
