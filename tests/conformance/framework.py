"""What a case needs of a framework; one implementation a framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Operation = tuple[str, tuple[Any, ...], Mapping[str, Any]]
"""A function of hvd by name, its arguments and its keyword arguments."""


@dataclass(frozen=True)
class Normalized:
    """What a layer of synchronized batch normalization gave for one batch.

    Attributes:
        output, input_gradient: of the batch's shape.
        mean, variance: running statistics after it, one number a channel.
    """

    output: Array
    input_gradient: Array
    mean: Array
    variance: Array


class Framework(Protocol):
    """A framework and its hvd module.

    Attributes:
        hvd: the module under test.
        reduced: the types (NumPy's names, and "bfloat16") of which every operation is documented.
        moved: the types that are documented for operations that only move data.
        errors: what a failed operation raises.
    """

    hvd: Any
    reduced: tuple[str, ...]
    moved: tuple[str, ...]
    errors: tuple[type[BaseException], ...]

    def tensor(self, values: object, dtype: str = "float32") -> Any:
        """A tensor of these values."""

    def strided(self, values: Array) -> Any:
        """A float32 tensor of these values, at least 2-D, that does not lie in memory row by row; any tensor where the
        framework has no others."""

    def numpy(self, tensor: Any) -> Array:
        """The values of a tensor; bfloat16 as float32."""

    def dtype_of(self, tensor: Any) -> str:
        """The type of a tensor."""

    def together(self, operations: Sequence[Operation]) -> list[Any]:
        """Starts operations in this order, without waiting for one before the next starts; returns their results."""

    def gradients(
        self, function: Callable[[list[Any]], list[Any]], inputs: Sequence[Array], upstream: Sequence[Array]
    ) -> list[Array]:
        """Gradients of sum_i upstream[i] * outputs[i] with respect to the float32 inputs of a function."""

    def variables(self, arrays: Sequence[Array]) -> list[Any]:
        """Trainable float32 variables."""

    def broadcast_variables(self, variables: Sequence[Any], root_rank: int) -> None:
        """Horovod's function that overwrites variables with the root's."""

    def optimizer(
        self, variables: Sequence[Any], rate: float, **options: Any
    ) -> Callable[[Sequence[Sequence[Array]]], None]:
        """Gradient descent in hvd.DistributedOptimizer with these options.

        Returns:
            A function that takes, for each backward pass of one step, the gradients of all variables, and makes the step.
        """

    def normalize(self, batch: Array, upstream: Array, momentum: float, **options: Any) -> Normalized:
        """One training batch (N, C, ...) through a new layer hvd.SyncBatchNorm of C channels."""

    def tolerate_deprecated(self) -> AbstractContextManager[Any]:
        """Lets the use of a deprecated argument pass, whether or not it warns."""
