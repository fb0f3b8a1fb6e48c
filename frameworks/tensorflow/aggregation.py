"""Accumulating the gradients of several backward passes before they are reduced (Horovod's `backward_passes_per_step`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.gradient_options import check_passes

from .control import done, either, make_variables, operations
from .local import scaled
from .parts import is_sparse

Reduce = Callable[[list[Any]], list[Any]]


class GradientAggregation:
    """Adds up gradients; those of every `passes`-th pass are reduced and given back. In graphs and eagerly.

    The first call makes the variables that hold the sums: outside of graphs of functions, inside those of tf.compat.v1, where
    `tf.compat.v1.global_variables_initializer()` initializes them.

    Args:
        passes: backward passes a step.
        average: divide the sums by `passes`.
        sparse_as_dense: make tf.IndexedSlices dense; without it they are refused.

    Attributes:
        counter: how many passes have been added up since the last step; a scalar variable, int32. None before the first.
    """

    def __init__(self, passes: int, average: bool, sparse_as_dense: bool) -> None:
        check_passes(passes)
        self.passes = passes
        self.counter: Any = None
        self._average = average
        self._sparse_as_dense = sparse_as_dense
        self._sums: list[Any] = []

    def add(self, gradients: Sequence[Any], reduce: Reduce) -> list[Any]:
        """Adds the gradients of a pass.

        Args:
            gradients: in the same order at each call; None stays None.
            reduce: reduces sums over the ranks; called, in a graph inside a condition, with the last pass before a step.

        Returns:
            With the last pass before a step the reduced sums, or their averages, else the sums so far, which
            `apply` does not apply.

        Raises:
            ValueError: tf.IndexedSlices, unless `sparse_as_dense`.
        """
        present = [self._dense(gradient) for gradient in gradients if gradient is not None]
        self._make_variables(present)
        with tf.control_dependencies([self.counter.assign_add(1, read_value=False)]):
            added = [total.assign_add(one) for total, one in zip(self._sums, present, strict=True)]
        with tf.control_dependencies(added):
            sums = [total.read_value() for total in self._sums]
            results = either(self._complete(), lambda: self._finish(sums, reduce), lambda: sums)
        rest = iter(results)
        return [None if gradient is None else next(rest) for gradient in gradients]

    def apply(self, update: Callable[[], Any], otherwise: Callable[[], Any], gradients: Sequence[Any] = ()) -> Any:
        """Calls `update` if a step is due, then forgets the sums; else `otherwise`. Both return an operation or None.

        Args:
            gradients: what `add` returned; in a graph of tf.compat.v1 nothing else says what comes first.
        """

        def step() -> Any:
            with tf.control_dependencies(operations(update())):
                cleared = [total.assign(tf.zeros_like(total), read_value=False) for total in self._sums]
                return done([*cleared, self.counter.assign(0, read_value=False)])

        given = [gradient for gradient in gradients if gradient is not None]
        with tf.control_dependencies(given):
            due = self._complete()
        return either(due, step, lambda: done(operations(otherwise())))

    def _complete(self) -> Any:
        return tf.equal(self.counter.read_value(), self.passes)

    def _finish(self, sums: list[Any], reduce: Reduce) -> list[Any]:
        factor = 1.0 / self.passes if self._average else 1.0
        return [tf.convert_to_tensor(scaled(one, factor)) for one in reduce(sums)]

    def _dense(self, gradient: Any) -> Any:
        if is_sparse(gradient) and not self._sparse_as_dense:
            raise ValueError(
                "IndexedSlices are not supported when `backward_passes_per_step` > 1 and `sparse_as_dense` is False"
            )
        return tf.convert_to_tensor(gradient)

    def _make_variables(self, gradients: Sequence[Any]) -> None:
        if self.counter is not None:
            return
        likes = [(gradient.shape, gradient.dtype) for gradient in gradients]
        self.counter, *self._sums = make_variables("hvd_aggregation", [((), tf.int32), *likes])
