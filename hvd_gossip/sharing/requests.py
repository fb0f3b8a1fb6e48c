"""The numbers under which a rank asks, so that nothing is handed out twice and everybody knows what is settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

FIRST_LEAD_TIME = 0.01
"""Seconds; what a request is taken to need until the first answer is there."""


@dataclass(frozen=True)
class Open(Generic[T]):
    """A request without an answer: to whom, about what, and when it was sent (seconds)."""

    peer: int
    about: T
    sent_at: float


class Requests(Generic[T]):
    """Open requests by number. Owner: the engine's thread."""

    def __init__(self) -> None:
        self._open: dict[int, Open[T]] = {}
        self._last = 0
        self._answer_time = FIRST_LEAD_TIME / 4
        self._seen: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def peers(self) -> list[int]:
        """Whose answers are missing."""
        return sorted({entry.peer for entry in self._open.values()})

    def new(self, peer: int, about: T, now: float) -> int:
        """The number of a new request to `peer`."""
        number = self.new_settled()
        self._open[number] = Open(peer, about, now)
        return number

    def new_settled(self) -> int:
        """A number for what came without being asked for."""
        self._last += 1
        return self._last

    def settle(self, number: int, now: float) -> T | None:
        """What the answered request was about; None for an answer that came before, or that nobody asked for."""
        entry = self._open.pop(number, None)
        if entry is None:
            return None
        self._answer_time += 0.2 * (now - entry.sent_at - self._answer_time)
        return entry.about

    def settled(self) -> int:
        """All requests up to this number are settled."""
        return min(self._open, default=self._last + 1) - 1

    def drop(self, peer: int) -> list[T]:
        """Settles what a failed rank will not answer."""
        numbers = [number for number, entry in self._open.items() if entry.peer == peer]
        return [self._open.pop(number).about for number in numbers]

    def lead_time(self) -> float:
        """Seconds in which an answer to a new request may be counted on."""
        return 4 * self._answer_time

    def is_repeated(self, source: int, number: int) -> bool:
        """Whether a request of another rank has come before; each rank's numbers grow."""
        if number <= self._seen.get(source, 0):
            return True
        self._seen[source] = number
        return False
