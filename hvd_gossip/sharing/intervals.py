"""Half-open intervals of units, and how many of them change hands when one worker asks another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

Interval = tuple[int, int]
"""The units start, start + 1, ..., stop - 1 of a pool."""


def nominal_share(rank: int, size: int, units: int) -> Interval:
    """What rank `rank` of `size` owns of `units` units before anybody has asked anybody."""
    return rank * units // size, (rank + 1) * units // size


class Intervals:
    """An ordered collection of disjoint intervals: its owner takes from the head, thieves get the tail. No lock."""

    __slots__ = ("_parts", "count")

    def __init__(self, parts: Iterable[Interval] = ()) -> None:
        self._parts: deque[Interval] = deque()
        self.count = 0
        self.extend(parts)

    def extend(self, parts: Iterable[Interval]) -> None:
        """Adds intervals at the tail; empty ones are left out."""
        for start, stop in parts:
            if stop > start:
                self._parts.append((start, stop))
                self.count += stop - start

    def take(self, count: int) -> Interval | None:
        """Removes up to `count` units in one piece from the head; None if there are none."""
        if not self._parts:
            return None
        start, stop = self._parts.popleft()
        cut = min(start + count, stop)
        if cut < stop:
            self._parts.appendleft((cut, stop))
        self.count -= cut - start
        return start, cut

    def split(self, count: int) -> tuple[Interval, ...]:
        """Removes the last `count` units (all, if there are fewer) and returns them in order."""
        parts: deque[Interval] = deque()
        while count > 0 and self._parts:
            start, stop = self._parts.pop()
            cut = max(start, stop - count)
            if cut > start:
                self._parts.append((start, cut))
            parts.appendleft((cut, stop))
            self.count -= stop - cut
            count -= stop - cut
        return tuple(parts)


class Progress(NamedTuple):
    """How far a worker has come with a pool.

    Attributes:
        left: units in its hands that its training thread has not taken yet.
        under_way: units that the thread has taken and not done yet, as far as can be told; a part of one counts as such.
        rate: units a second so far; 0 if unknown, or if it takes none.
    """

    left: int
    under_way: float
    rate: float

    @property
    def ahead(self) -> float:
        """All that is still to be done."""
        return self.left + self.under_way


def fair_grant(own: Progress, other: Progress, want: int, urgent: bool) -> int:
    """How many of the units left to it a worker gives to one that asks.

    So many that both end at the same moment: of workers that are equally fast the one that has nothing gets half, one
    10,000 times as fast gets nearly everything, and the last unit goes to the one that will be free for it first. A worker
    whose training thread waits (`urgent`) always gets something: what it wants, up to half of the rest rounded up. To one
    that only looks ahead, less than `want` is not worth it.

    Args:
        own, other: of who gives, and of who asks; if the asker's rate is unknown: half and half.
        want: what the asker takes at once, at least 1.
    """
    part = other.rate / (other.rate + own.rate) if other.rate > 0 else 0.5
    grant = min(own.left, round((own.ahead + other.ahead) * part - other.ahead))
    if urgent:
        return max(grant, min(want, (own.left + 1) // 2))
    return grant if 4 * grant >= want else 0
