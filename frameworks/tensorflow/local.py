"""Gradients that stay local: of layers that differ between workers, such as parts of a large embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.basics import ProcessSet

from .variables import bare


class LocalVariables:
    """The variables that are this worker's own.

    Args:
        process_set: whose gradients the others' are averaged over.
        scale: divide local gradients by the number of ranks, so that they are on a par with averages: the others' losses
            count as well, but reach these variables through this worker's activations only.
    """

    def __init__(self, process_set: ProcessSet, scale: bool) -> None:
        self._process_set = process_set
        self._scale = scale
        self._ids: set[int] = set()
        self._held: list[Any] = []  # so that no id is given again

    def add(self, variable: Any) -> None:
        """This variable's gradients stay local from now on."""
        self._ids.add(id(bare(variable)))
        self._held.append(variable)

    def holds(self, variable: Any) -> bool:
        """Whether this variable's gradients stay local."""
        return id(bare(variable)) in self._ids

    def reduce_others(
        self,
        reduce: Callable[[Sequence[Any], Sequence[Any]], list[Any]],
        gradients: Sequence[Any],
        variables: Sequence[Any],
    ) -> list[Any]:
        """The gradients, local ones scaled, the others reduced by `reduce(gradients, variables)`."""
        local = [self.holds(variable) for variable in variables]
        others = [pair for pair, own in zip(zip(gradients, variables, strict=True), local, strict=True) if not own]
        reduced = iter(reduce([gradient for gradient, _ in others], [variable for _, variable in others]))
        pairs = zip(gradients, local, strict=True)
        return [self._scaled(gradient) if own else next(reduced) for gradient, own in pairs]

    def _scaled(self, gradient: Any) -> Any:
        members = self._process_set.size() if self._process_set.included() else 1
        return scaled(gradient, 1.0 / (members or 1)) if self._scale else gradient


def variables_of(layers: Any) -> list[Any]:
    """The trainable variables of a Keras layer, or of several; none of None.

    Raises:
        ValueError: something else than layers.
    """
    if layers is None:
        return []
    chosen = list(layers) if isinstance(layers, (list, tuple, set)) else [layers]
    if not all(hasattr(layer, "trainable_weights") for layer in chosen):
        raise ValueError("All local layers must be of type tf.keras.layers.Layer.")
    return [weight for layer in chosen for weight in layer.trainable_weights]


def scaled(gradient: Any, factor: float) -> Any:
    """A gradient times a number: None, a tensor or tf.IndexedSlices."""
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        values = gradient.values * tf.cast(factor, gradient.values.dtype)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)
