"""Gradients on their way through one crossing: dense ones and those that consist of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from hvd_gossip.calls import Call
from hvd_gossip.collectives import Result

from . import sparse
from .arrays import Array, check_type
from .compression import Compressor
from .crossing import cross
from .submit import carry_out_all, like, output_of


class DensePart:
    """A dense tensor on its way.

    Attributes:
        tensors: what crosses.
        specs: shapes and types of what comes back, as many.
    """

    def __init__(self, tensor: Any, call: Call, compression: type[Compressor]) -> None:
        compressed, self._context = compression.compress(tensor)
        check_type(compressed)
        self.tensors, self.specs = [compressed], [like(compressed)]
        self._call, self._compression = call, compression

    def request(self, arrays: Sequence[Array]) -> tuple[Call, list[Array]]:
        """The call, and what is submitted."""
        return self._call, [arrays[0]]

    def arrays_of(self, result: Result, arrays: Sequence[Array]) -> list[Array]:
        """What comes back."""
        return [output_of(result)]

    def reduced(self, tensors: Sequence[Any]) -> Any:
        """The reduced gradient, from what came back."""
        return self._compression.decompress(tensors[0], self._context)


class SparsePart:
    """Rows with their indices on their way; see DensePart."""

    def __init__(self, slices: Any, call: Call) -> None:
        sparse.check_sparse(call.name, slices, call.fields["op"])
        self.tensors, self.specs = [slices.indices, slices.values], sparse.specs_of(slices)
        self._call, self._shape = call, slices.dense_shape

    def request(self, arrays: Sequence[Array]) -> tuple[Call, list[Array]]:
        return sparse.gathering(self._call), [sparse.pack(*arrays)]

    def arrays_of(self, result: Result, arrays: Sequence[Array]) -> list[Array]:
        return sparse.unpack(result, *arrays, self._call)

    def reduced(self, tensors: Sequence[Any]) -> Any:
        indices, values = tensors
        return tf.IndexedSlices(values, indices, self._shape)


Part = DensePart | SparsePart


def is_sparse(gradient: Any) -> bool:
    """Whether a gradient consists of rows with their indices."""
    return isinstance(gradient, tf.IndexedSlices)


def part_of(gradient: Any, call: Call, compression: type[Compressor]) -> Part:
    """A gradient as a part of a crossing.

    Raises:
        ValueError: its type cannot be communicated. NotImplementedError: rows under another reduction than Average and Sum.
    """
    if is_sparse(gradient):
        return SparsePart(gradient, call)
    return DensePart(tf.convert_to_tensor(gradient), call, compression)


def reduce_together(parts: Sequence[Part], name: str) -> list[Any]:
    """The reduced gradients of all parts, by one crossing.

    Args:
        name: of the crossing in the graph.
    """
    if not parts:
        return []

    def run(arrays: list[Array]) -> list[Array]:
        own = _divide(arrays, parts)
        results = carry_out_all([part.request(mine) for part, mine in zip(parts, own, strict=True)])
        together = zip(parts, results, own, strict=True)
        return [array for part, (result,), mine in together for array in part.arrays_of(result, mine)]

    tensors = [tensor for part in parts for tensor in part.tensors]
    specs = [spec for part in parts for spec in part.specs]
    outputs = cross(run, tensors, specs, name)
    return [part.reduced(mine) for part, mine in zip(parts, _divide(outputs, parts), strict=True)]


def _divide(items: Sequence[Any], parts: Sequence[Part]) -> list[list[Any]]:
    """The items of each part."""
    rest = iter(items)
    return [[next(rest) for _ in part.tensors] for part in parts]
