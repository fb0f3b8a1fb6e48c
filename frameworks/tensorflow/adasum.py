"""The optimizer for op=Adasum: what is combined is not gradients but what the local steps changed (Horovod's
docs/adasum_user_guide.rst; Maleki et al., "Scaling distributed training with adaptive summation", 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.collectives.objections import POWER_OF_TWO, is_power_of_two
from hvd_gossip.gradient_options import check_passes

from .api import public
from .averaging import GradientAveraging
from .control import done, either, make_variables, operations
from .delegating import DelegatingOptimizer


class AdasumOfDeltas(DelegatingOptimizer):
    """Every `passes` steps: x <- s + Adasum_j(x_j - s), where s is what all x_j were after the last time.

    Args:
        optimizer: makes the steps in between, with each rank's own gradients.
        averaging: reduces by Adasum.
        passes: local steps between two reductions.

    Raises:
        NotImplementedError: the number of ranks is not a power of two (Horovod's rule).
    """

    def __init__(
        self, optimizer: Any, name: str, use_locking: bool, averaging: GradientAveraging, passes: int = 1
    ) -> None:
        check_passes(passes)
        members = averaging.process_set.size() or 1
        if not is_power_of_two(members):
            raise NotImplementedError(f"{POWER_OF_TWO}: there are {members}")
        super().__init__(optimizer, name, use_locking)
        self._averaging = averaging
        self._passes = passes
        self._steps: Any = None
        self._starts: list[Any] = []

    @public
    def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, name: str | None = None) -> Any:
        """The wrapped optimizer's step, and every `passes` steps the reduction of what these changed."""
        pairs = list(grads_and_vars)
        variables = [variable for gradient, variable in pairs if gradient is not None]
        self._make_variables(variables)
        begun = either(tf.equal(self._steps.read_value(), 0), lambda: self._begin(variables), lambda: done([]))
        with tf.control_dependencies(operations(begun)):
            updated = self._optimizer.apply_gradients(pairs, global_step)
        with tf.control_dependencies(operations(updated)):
            steps = self._steps.assign_add(1)
        due = tf.equal(tf.math.floormod(steps, self._passes), 0)
        with tf.control_dependencies(operations(updated)):
            return either(due, lambda: self._combine(variables), lambda: done([]))

    def _begin(self, variables: Sequence[Any]) -> Any:
        pairs = zip(self._starts, variables, strict=True)
        return done([start.assign(variable.read_value(), read_value=False) for start, variable in pairs])

    def _combine(self, variables: Sequence[Any]) -> Any:
        """Goes on from the starts by the combined deltas."""
        starts = [start.read_value() for start in self._starts]
        deltas = [variable.read_value() - start for variable, start in zip(variables, starts, strict=True)]
        combined = self._averaging(deltas, variables)
        values = [start + delta for start, delta in zip(starts, combined, strict=True)]
        targets = zip([*variables, *self._starts], values * 2, strict=True)
        return done([target.assign(value, read_value=False) for target, value in targets])

    def _make_variables(self, variables: Sequence[Any]) -> None:
        if self._steps is None:
            likes = [(variable.shape, variable.dtype.base_dtype) for variable in variables]
            self._steps, *self._starts = make_variables("hvd_adasum", [((), tf.int64), *likes])
