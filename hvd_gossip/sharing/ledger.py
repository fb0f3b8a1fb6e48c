"""Who is known to have nothing left of a pool: how a worker finds out, without a coordinator, that an epoch is over.

"I have nothing" is not enough: the one who said so may have been given something since, or be just about to receive it.
So requests are numbered by each asker, and two things are noted for every rank i, and passed on with each message:

    asserted[i]   i had nothing at a moment when all its requests below this number were settled (0: it never said so)
    required[i]   somebody gave i something upon its request with this number less one, or i was to assert at all (1)

A pool is exhausted when asserted[i] >= required[i] for every live i (a consistent cut, as in Mattern, "Algorithms for
distributed termination detection", 1987). Both only grow, so copies are merged by the element-wise maximum, in any
order and from anybody: the news spreads as gossip does, in about log2(n) messages a rank.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int32]


def pack(numbers: Numbers) -> bytes:
    """Small where it matters: MPI sends up to about 2 KiB at once, and 8 KiB only after asking the receiver.

    Numbers of one time are of one size, so their high bytes, brought together, nearly vanish.
    """
    return zlib.compress(numbers.view(np.uint8).reshape(-1, numbers.itemsize).T.tobytes(), 1)


def unpack(packed: bytes) -> Numbers:
    """What was packed: int32, of one dimension."""
    planes = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.ascontiguousarray(planes.reshape(np.dtype(np.int32).itemsize, -1).T).view(np.int32).reshape(-1)


class Ledger:
    """One rank's copy of the two tables of one pool. Owner: the engine's thread.

    Args:
        rank: whose copy.
        floor: lower limits of `required`, int32 of shape (size,): what is known of grants when the pool is first heard of.
        absent: ranks that departed or failed; they do not count.
    """

    def __init__(self, rank: int, floor: Numbers, absent: Iterable[int]) -> None:
        self._rank = rank
        self._asserted: Numbers = np.zeros(floor.size, np.int32)
        self._required: Numbers = np.maximum(floor, 1)
        self._absent = np.zeros(floor.size, np.bool_)
        self._absent[list(absent)] = True

    def assert_empty(self, settled: int) -> None:
        """This rank has nothing, and all its requests up to number `settled` are settled."""
        self._asserted[self._rank] = max(self._asserted[self._rank], settled + 1)

    def require(self, rank: int, number: int) -> None:
        """`rank` has been given something under its number `number`: earlier assertions of it are void."""
        self._required[rank] = max(self._required[rank], number + 1)

    def raise_floor(self, floor: Numbers) -> None:
        """Requires what a departed rank knew of."""
        np.maximum(self._required, floor, out=self._required)

    def exclude(self, rank: int) -> None:
        self._absent[rank] = True

    def table(self) -> bytes:
        """Both tables, packed: a byte or two for every rank; none as long as there is nothing to tell."""
        return pack(np.concatenate((self._asserted, self._required))) if self._asserted.any() else b""

    def merge(self, table: bytes) -> None:
        """Takes over what another rank's copy knows."""
        if table:
            asserted, required = unpack(table).reshape(2, -1)
            np.maximum(self._asserted, asserted, out=self._asserted)
            np.maximum(self._required, required, out=self._required)

    def suspects(self, but: Iterable[int] = ()) -> npt.NDArray[np.intp]:
        """The other live ranks that may have something, but those."""
        open_ = (self._asserted < self._required) & ~self._absent
        open_[[self._rank, *but]] = False
        return np.flatnonzero(open_)

    def exhausted(self) -> bool:
        """Whether nobody alive has anything, or ever will."""
        return bool(np.all((self._asserted >= self._required) | self._absent))
