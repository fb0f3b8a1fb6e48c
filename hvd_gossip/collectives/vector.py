"""Several arrays addressed as one long one, so that fused tensors need no fusion buffer and no copy of large tensors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hvd_gossip.transport.endpoint import Array


class Piece(NamedTuple):
    """Part of a range: its elements [low, high), counted from its start, are `view`."""

    low: int
    high: int
    view: Array


class Vector:
    """A sequence of C-contiguous arrays of one dtype, as one vector.

    Attributes:
        length: number of elements of all arrays together.
        dtype: theirs.
    """

    __slots__ = ("_flats", "_starts", "dtype", "length")

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._flats = [array.reshape(-1) for array in arrays]
        self._starts = []
        self.length = 0
        for flat in self._flats:
            self._starts.append(self.length)
            self.length += flat.size
        self.dtype = self._flats[0].dtype

    @property
    def first(self) -> Array:
        """The first array, to look up module and device."""
        return self._flats[0]

    @property
    def bounds(self) -> list[int]:
        """Where each array begins, and where the last one ends."""
        return [*self._starts, self.length]

    def index_of(self, start: int) -> int:
        """The array that an element lies in."""
        return bisect_right(self._starts, start) - 1

    def view(self, start: int, stop: int) -> Array | None:
        """Elements [start, stop) without a copy, or None if they lie in several arrays."""
        index = bisect_right(self._starts, start) - 1
        flat, offset = self._flats[index], self._starts[index]
        return flat[start - offset : stop - offset] if stop - offset <= flat.size else None

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Elements [start, stop), array by array."""
        begin = start
        index = bisect_right(self._starts, start) - 1
        while start < stop:
            flat, offset = self._flats[index], self._starts[index]
            end = min(stop, offset + flat.size)
            if end > start:
                yield Piece(start - begin, end - begin, flat[start - offset : end - offset])
            start = max(start, end)
            index += 1

    def read(self, start: int, stop: int, scratch: Array) -> Array:
        """Elements [start, stop): a view, or `scratch` filled with them."""
        whole = self.view(start, stop)
        if whole is not None:
            return whole
        for low, high, view in self.pieces(start, stop):
            scratch[low:high] = view
        return scratch[: stop - start]

    def write(self, start: int, stop: int, values: Array) -> None:
        """Elements [start, stop) <- values."""
        for low, high, view in self.pieces(start, stop):
            view[...] = values[low:high]
