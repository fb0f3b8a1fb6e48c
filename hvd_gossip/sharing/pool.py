"""One rank's part of a shared pool: what its training thread takes from and its engine gives away and adds to.

Who owns what: the remaining intervals and the numbers derived from them are guarded by one lock (of all the pools of a
process; held for microseconds, never across a message). Everything else of a pool belongs to the engine's thread.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hvd_gossip.sharing.intervals import Interval, Intervals, Progress, fair_grant
from hvd_gossip.sharing.messages import PoolKey, PoolSpec, Request


@dataclass
class SharingStats:
    """Totals of one rank since it started sharing, over all pools. Written under the pools' lock.

    Attributes:
        taken: units handed to this rank's training thread.
        stolen, given: units received from and given to other ranks.
        asked: requests sent.
        waits, wait_seconds: how often, and how long in all, the training thread had to wait for units (the search at
            the end of an epoch included).
    """

    taken: int = 0
    stolen: int = 0
    given: int = 0
    asked: int = 0
    waits: int = 0
    wait_seconds: float = 0.0


class SharedPool:
    """Units of one epoch that are in this rank's hands.

    Args:
        key, spec: which pool.
        parts: what is here at first.
        lock: guards all pools of the process.
        stats: counts `taken` and `given`.
        now: a clock in seconds that may be read from any thread.
        lead_time: how long it takes at present to get units from another rank, seconds.
        on_low: called, outside the lock and from whichever thread takes, when it is time to ask other ranks.
    """

    def __init__(
        self,
        key: PoolKey,
        spec: PoolSpec,
        parts: Iterable[Interval],
        *,
        lock: threading.Lock,
        stats: SharingStats,
        now: Callable[[], float],
        lead_time: Callable[[], float],
        on_low: Callable[[SharedPool], None],
    ) -> None:
        self.key = key
        self.spec = spec
        self._lock = lock
        self._left = Intervals(parts)
        self._stats = stats
        self._now = now
        self._lead_time = lead_time
        self._on_low = on_low
        self._taken = 0
        self._entered_at: float | None = None
        self._window_start = -math.inf
        self._window_taken = 0
        self._most_at_once = 1
        self._ask_below = math.inf
        self._has_left = False
        self._exhausted = False

    @property
    def exhausted(self) -> bool:
        """Whether nobody has anything left: no unit will ever come again."""
        return self._exhausted

    @property
    def remaining(self) -> int:
        return self._left.count

    @property
    def want(self) -> int:
        """The most units that were taken while a request would have been under way."""
        return self._most_at_once

    def take(self, count: int = 1) -> Interval | None:
        """Up to `count` units in one piece, now the caller's; None if there are none here at the moment."""
        now = self._now()
        with self._lock:
            interval = self._left.take(count)
            if interval is None:
                return None
            self._note(interval[1] - interval[0], now)
            low = self._left.count <= min(2 * self._most_at_once, self._ask_below)
            if low:
                self._ask_below = -1
        if low:
            self._on_low(self)
        return interval

    def is_low(self) -> bool:
        """Whether what is here may be used up before more can come."""
        return self._left.count <= 2 * self._most_at_once

    def busy_for(self) -> float:
        """Seconds until the training thread will probably come for more; 0 if that cannot be told."""
        now = self._now()
        with self._lock:
            pace = self._pace()
            return self._under_way(now) / pace if pace else 0.0

    def has_next(self) -> bool:
        """Whether what is here is enough for the next time that the training thread comes."""
        return self._left.count >= self._most_at_once

    def look_again(self, fruitless: bool) -> None:
        """The search for more has ended: the next starts when the pool is low, after a fruitless one when it is empty."""
        with self._lock:
            self._ask_below = 0 if fruitless else math.inf

    def request(self, number: int, urgent: bool, table: bytes) -> Request:
        """A request for more, as things stand."""
        now = self._now()
        with self._lock:
            seconds = self._seconds(now)
            remaining, taken, want = self._left.count, self._taken, self._most_at_once
            under_way = self._under_way(now)
        return Request(number, self.key, self.spec, remaining, under_way, taken, seconds, want, urgent, table)

    def add(self, parts: Iterable[Interval]) -> None:
        with self._lock:
            self._left.extend(parts)

    def grant(self, request: Request) -> tuple[Interval, ...]:
        """Removes what the asker gets."""
        now = self._now()
        rate = request.taken / request.seconds if request.seconds else 0.0
        with self._lock:
            own = Progress(self._left.count, self._under_way(now), self._rate(now, request))
            other = Progress(request.remaining, request.under_way, rate)
            count = fair_grant(own, other, request.want, request.urgent)
            self._stats.given += min(count, self._left.count)
            return self._left.split(count)

    def empty(self) -> tuple[Interval, ...]:
        """Removes everything."""
        with self._lock:
            return self._left.split(self._left.count)

    def leave(self) -> None:
        """The training thread takes no more: other ranks may have all the rest."""
        with self._lock:
            self._has_left = True
            self._ask_below = -1

    def close(self) -> None:
        """Nobody has anything left."""
        self._exhausted = True

    def _note(self, count: int, now: float) -> None:
        if self._entered_at is None:
            self._entered_at = now
        if now - self._window_start > self._lead_time():
            self._window_start, self._window_taken = now, 0
        self._taken += count
        self._stats.taken += count
        self._window_taken += count
        self._most_at_once = max(self._most_at_once, self._window_taken)

    def _seconds(self, now: float) -> float:
        """How long the training thread takes units from here: not less than is needed to tell; 0 before the first."""
        return 0.0 if self._entered_at is None else max(now - self._entered_at, self._lead_time())

    def _pace(self) -> float:
        """Units a second up to when the training thread last came, by what it had done then; 0 if it came once.

        Unlike `_rate` it neither counts what is under way nor falls while that lasts.
        """
        if self._entered_at is None or self._window_start <= self._entered_at:
            return 0.0
        return (self._taken - self._window_taken) / (self._window_start - self._entered_at)

    def _under_way(self, now: float) -> float:
        """Units that the training thread took last, less what it has done of them by its pace so far."""
        if self._has_left or self._entered_at is None:
            return 0.0
        return max(0.0, self._window_taken - (now - self._window_start) * self._pace())

    def _rate(self, now: float, request: Request) -> float:
        """Units a second here. Of a thread that has not come yet, in all the time that the asker had: one burst."""
        if self._has_left:
            return 0.0
        if self._entered_at is not None:
            return self._taken / self._seconds(now)
        return request.want / request.seconds if request.seconds else 0.0
