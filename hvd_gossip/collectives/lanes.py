"""How a vector is cut for an allreduce: into lanes of one segment a rank, each at most a chunk."""

from __future__ import annotations


class Lanes:
    """The cut of `length` elements among `size` ranks.

    Attributes:
        count: number of lanes; 0 if there are no elements.
        longest: elements of the longest segment.
    """

    __slots__ = ("_chunk", "_length", "_size", "count", "longest")

    def __init__(self, length: int, size: int, chunk: int) -> None:
        self._length = length
        self._size = size
        self._chunk = chunk
        self.count = -(-length // (size * chunk))
        self.longest = min(chunk, -(-length // size))

    def bounds(self, lane: int, segment: int) -> tuple[int, int]:
        """The elements of a lane's segment, taken modulo the number of ranks. The last lane's may be short, or empty."""
        segment %= self._size
        start = lane * self._size * self._chunk
        if lane < self.count - 1:
            return start + segment * self._chunk, start + (segment + 1) * self._chunk
        length = self._length - start
        return start + length * segment // self._size, start + length * (segment + 1) // self._size
