"""Gradients on their way through one crossing: dense ones, together, and those that consist of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.calls import Call

from . import sparse
from .arrays import Array, check_type
from .compression import Compressor
from .crossing import cross
from .submit import Outcome, carry_out_all, like


class DensePart:
    """Dense tensors on their way, as a whole.

    Args:
        call: if it is grouped, small tensors travel as one; else there is one tensor.

    Attributes:
        tensors: what crosses.
        specs: shapes and types of what comes back, as many.
    """

    def __init__(self, tensors: Sequence[Any], call: Call, compression: type[Compressor]) -> None:
        pairs = [compression.compress(tf.convert_to_tensor(tensor)) for tensor in tensors]
        self.tensors = [compressed for compressed, _ in pairs]
        self.specs = [like(compressed) for compressed in self.tensors]
        for compressed in self.tensors:
            check_type(compressed)
        self._contexts = [context for _, context in pairs]
        self._call, self._compression = call, compression

    def request(self, arrays: Sequence[Array]) -> tuple[Call, Sequence[Array]]:
        """The call, and what is submitted."""
        return self._call, arrays

    def arrays_of(self, outcomes: Sequence[Outcome], arrays: Sequence[Array]) -> list[Array]:
        """What comes back."""
        return [outcome.output for outcome in outcomes]

    def reduced(self, tensors: Sequence[Any]) -> list[Any]:
        """The reduced gradients, from what came back."""
        return [self._compression.decompress(*pair) for pair in zip(tensors, self._contexts, strict=True)]


class SparsePart:
    """Rows with their indices on their way; see DensePart.

    Raises:
        NotImplementedError: another reduction than Average and Sum. ValueError: a type that cannot be communicated.
    """

    def __init__(self, slices: Any, call: Call) -> None:
        sparse.check_sparse(call.name, slices, call.fields["op"])
        self.tensors, self.specs = [slices.indices, slices.values], sparse.specs_of(slices)
        self._call, self._shape = call, slices.dense_shape

    def request(self, arrays: Sequence[Array]) -> tuple[Call, Sequence[Array]]:
        return sparse.gathering(self._call), [sparse.pack(*arrays)]

    def arrays_of(self, outcomes: Sequence[Outcome], arrays: Sequence[Array]) -> list[Array]:
        return sparse.unpack(outcomes[0], arrays[0], arrays[1], self._call)

    def reduced(self, tensors: Sequence[Any]) -> list[Any]:
        indices, values = tensors
        return [tf.IndexedSlices(values, indices, self._shape)]


Part = DensePart | SparsePart
Around = Callable[[Callable[[], Any]], Any]
"""Calls a function and returns what it returns."""


def is_sparse(gradient: Any) -> bool:
    """Whether a gradient consists of rows with their indices."""
    return isinstance(gradient, tf.IndexedSlices)


def reduce_parts(parts: Sequence[Part], name: str, around: Around | None = None) -> list[list[Any]]:
    """The reduced gradients of each part, by one crossing for all.

    Args:
        name: of the crossing in the graph.
        around: carries out what the crossing does, a step: for metrics.
    """
    if not parts:
        return []

    def run(arrays: list[Array]) -> list[Array]:
        own = _divide(arrays, parts)
        requests = [part.request(mine) for part, mine in zip(parts, own, strict=True)]
        outcomes = carry_out_all(requests) if around is None else around(lambda: carry_out_all(requests))
        together = zip(parts, outcomes, own, strict=True)
        return [array for part, given, mine in together for array in part.arrays_of(given, mine)]

    tensors = [tensor for part in parts for tensor in part.tensors]
    specs = [spec for part in parts for spec in part.specs]
    outputs = cross(run, tensors, specs, name)
    return [part.reduced(mine) for part, mine in zip(parts, _divide(outputs, parts), strict=True)]


def _divide(items: Sequence[Any], parts: Sequence[Part]) -> list[list[Any]]:
    """The items of each part."""
    rest = iter(items)
    return [[next(rest) for _ in part.tensors] for part in parts]
