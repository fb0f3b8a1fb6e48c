"""What a distributed Keras optimizer delegates to: one of two ways of keeping replicas together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.collectives import Min

from .. import reduce_ops
from ..averaging import GradientAveraging
from ..local import LocalVariables
from ..meter import Meter
from ..mixing import ParameterMixing
from .options import Options


class Averaging:
    """The strategy of algorithm `allreduce`.

    Args:
        name: of the optimizer.
        local: variables whose gradients stay local.
    """

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


def make_strategy(name: str, options: Options, local: LocalVariables, variables: Sequence[Any]) -> Averaging | Mixing:
    """The strategy that the options ask for.

    Raises:
        NotInitializedError, ConfigError, ValueError: see `Options.algorithm`.
    """
    if options.algorithm().averages == "gradients" or not options.process_set.included():
        return Averaging(name, options, local)
    return Mixing(name, options, local, variables)
