"""Copies of variables in flat host buffers, one a type: what gossip exchanges, while TensorFlow keeps the variables' memory
to itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .arrays import Array, aligned_like

PIECE = 1 << 16
"""Elements that are worked on at a time: they stay in a core's cache."""


class FlatMirror:
    """Flat buffers that hold the values of variables.

    Args:
        arrays: the variables' values.

    Attributes:
        buffers: 1-D arrays, in the order in which their types first appear.
    """

    def __init__(self, arrays: Sequence[Array]) -> None:
        groups: dict[np.dtype[np.generic], list[int]] = {}
        for place, array in enumerate(arrays):
            groups.setdefault(array.dtype, []).append(place)
        views: dict[int, Array] = {}
        self.buffers: list[Array] = []
        for dtype, places in groups.items():
            buffer = aligned_like(np.empty(sum(arrays[place].size for place in places), dtype))
            ends = np.cumsum([arrays[place].size for place in places]).tolist()
            for place, end in zip(places, ends, strict=True):
                views[place] = buffer[end - arrays[place].size : end]
            self.buffers.append(buffer)
        self._shapes = [array.shape for array in arrays]
        self._views = [views[place] for place in range(len(arrays))]
        self.replace(arrays)  # `adopt` would look at what memory held before

    def fits(self, arrays: Sequence[Array]) -> bool:
        """Whether the buffers can hold these values."""
        return [(array.shape, array.dtype) for array in arrays] == [
            (shape, view.dtype) for shape, view in zip(self._shapes, self._views, strict=True)
        ]

    def adopt(self, arrays: Sequence[Array]) -> None:
        """Takes over the values of variables that somebody has assigned to since."""
        for view, array in zip(self._views, map(_flat, arrays), strict=True):
            for part in _parts(view):
                if not np.array_equal(view[part], array[part]):
                    view[part] = array[part]

    def advance(self, before: Sequence[Array], after: Sequence[Array]) -> None:
        """Adds what an update has changed: buffers <- after + (buffers - before).

        Exactly `after` where the buffers hold `before`. No element is ever anything but its old or its new value, since the
        engine may read it meanwhile.
        """
        for view, old, new in zip(self._views, map(_flat, before), map(_flat, after), strict=True):
            for part in _parts(view):
                difference = view[part] - old[part]
                view[part] = np.add(difference, new[part], out=difference)

    def replace(self, after: Sequence[Array]) -> None:
        """As `advance`, where the buffers hold what was before the update."""
        for view, new in zip(self._views, map(_flat, after), strict=True):
            view[...] = new

    def values(self) -> list[Array]:
        """The values as arrays of the variables' shapes, that nobody else writes to."""
        results = []
        for view, shape in zip(self._views, self._shapes, strict=True):
            copy = aligned_like(view)
            copy[...] = view
            results.append(copy.reshape(shape))
        return results


def _parts(view: Array) -> Iterator[slice]:
    return (slice(start, start + PIECE) for start in range(0, view.size, PIECE))


def _flat(array: Array) -> Array:
    return array.reshape(math.prod(array.shape))
