"""Optimizers of tf.compat.v1 around others: gradients averaged before the update, or variables mixed after it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .aggregation import GradientAggregation
from .api import public
from .averaging import GradientAveraging
from .control import operations
from .delegating import DelegatingOptimizer
from .local import LocalVariables
from .mixing import ParameterMixing


class AveragingOptimizer(DelegatingOptimizer):
    """An optimizer of tf.compat.v1 whose gradients are reduced in `compute_gradients()`.

    Args:
        optimizer: makes the updates.
        averaging: reduces the gradients.
        passes: backward passes a step: `compute_gradients()` adds gradients up, and `apply_gradients()` does nothing but
            count the global step, until there are as many.
        average_aggregated: divide the sums of several passes by their number.
        scale_local: divide local gradients by the number of ranks.
    """

    def __init__(
        self,
        optimizer: Any,
        name: str,
        use_locking: bool,
        averaging: GradientAveraging,
        passes: int = 1,
        average_aggregated: bool = False,
        scale_local: bool = True,
    ) -> None:
        super().__init__(optimizer, name, use_locking)
        self._averaging = averaging
        self._local = LocalVariables(averaging.process_set, scale_local)
        self._aggregation = (
            GradientAggregation(passes, average_aggregated, averaging.sparse_as_dense) if passes != 1 else None
        )

    def register_local_var(self, var: Any) -> None:
        """This variable's gradients stay local: they are not reduced, only scaled."""
        self._local.add(var)

    @public
    def compute_gradients(self, *args: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
        """The wrapped optimizer's gradients, reduced over the ranks, with their variables."""
        pairs = self._optimizer.compute_gradients(*args, **kwargs)
        gradients, variables = [gradient for gradient, _ in pairs], [variable for _, variable in pairs]
        if self._aggregation is None:
            reduced = self._reduce(gradients, variables)
        else:
            given = [variable for gradient, variable in pairs if gradient is not None]
            reduced = self._aggregation.add(gradients, lambda sums: self._reduce(sums, given))
        return list(zip(reduced, variables, strict=True))

    @public
    def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, name: str | None = None) -> Any:
        """The wrapped optimizer's, if a step is due."""
        pairs = list(grads_and_vars)
        if self._aggregation is None:
            return self._apply(pairs, global_step, name)
        return self._aggregation.apply(
            lambda: self._apply(pairs, global_step, name),
            lambda: None if global_step is None else tf.compat.v1.assign_add(global_step, 1),
            [gradient for gradient, _ in pairs],
        )

    def _apply(self, pairs: list[tuple[Any, Any]], global_step: Any, name: str | None) -> Any:
        return self._optimizer.apply_gradients(pairs, global_step, name)

    def _reduce(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        with tf.name_scope(f"{self._name}_Allreduce"):
            return self._local.reduce_others(self._averaging, gradients, variables)


class MixingOptimizer(AveragingOptimizer):
    """An optimizer of tf.compat.v1 under a gossip algorithm: gradients stay local, variables are mixed after each update.

    The variables are those of the first `apply_gradients()`, local ones left out. Arguments as for AveragingOptimizer.
    """

    _mixing: ParameterMixing | None = None

    def _reduce(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        return self._local.reduce_others(lambda others, _: list(others), gradients, variables)

    def _apply(self, pairs: list[tuple[Any, Any]], global_step: Any, name: str | None) -> Any:
        if self._mixing is None:
            mixed = [variable for _, variable in pairs if not self._local.holds(variable)]
            self._mixing = ParameterMixing(mixed, self._averaging.process_set)
        before = self._mixing.read()
        with tf.control_dependencies(before):
            updated = self._optimizer.apply_gradients(pairs, global_step, name)
        with tf.control_dependencies(operations(updated)):
            assigned = self._mixing.step(before, f"HvdGossip_{self._name}")
        return None if tf.executing_eagerly() else tf.group(*assigned)
