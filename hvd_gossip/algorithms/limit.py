"""A bound on the waits of one algorithm, all of the same length: one timer for them all."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

from hvd_gossip.errors import WaitTimeoutError
from hvd_gossip.tasks import Description, Future, Task, describe
from hvd_gossip.transport.endpoint import Endpoint

R = TypeVar("R")
_KEPT = 4
"""Up to so many waits it is not worth while to look for those that are over."""


class Limit:
    """Ends with WaitTimeoutError what is not done after so many seconds.

    A timer of its own for every wait would cost more than most waits do. Owner: the engine's thread.

    Args:
        endpoint: gives the clock.
        seconds: how long a wait may last; infinity: for ever.
    """

    def __init__(self, endpoint: Endpoint, seconds: float) -> None:
        self._endpoint = endpoint
        self._seconds = seconds
        self._open: deque[tuple[float, Sequence[Future[Any]], Description]] = deque()
        self._timer: Future[None] | None = None

    def watch(self, future: Future[R], what: Description = "") -> Future[R]:
        """The future, which from now on has so many seconds left.

        Args:
            what: is waited for, in the error's message; by default what the future says of itself.
        """
        self.watch_all((future,), what)
        return future

    def watch_all(self, futures: Sequence[Future[Any]], what: Description = "") -> None:
        """As `watch`, for futures that have begun together."""
        if self._seconds == math.inf:
            return
        waits = self._open
        while len(waits) > _KEPT and _done(waits[0][1]):  # soon: memory that is still in the cache is used again
            waits.popleft()
        waits.append((self._endpoint.now() + self._seconds, futures, what))
        if self._timer is None:
            self._sleep(self._seconds)

    def close(self) -> None:
        """Nothing is watched any more."""
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sleep(self, seconds: float) -> None:
        self._timer = self._endpoint.sleep(seconds)
        self._timer.add_callback(self._look)

    def _look(self, timer: Future[None]) -> None:
        """The first wait that was open when the timer began may be over."""
        if timer.error() is not None:
            return
        self._timer = None
        now = self._endpoint.now()
        while self._open and (self._open[0][0] <= now or _done(self._open[0][1])):
            _, futures, what = self._open.popleft()
            for future in futures:
                if not future.done():
                    future.cancel(WaitTimeoutError(self._message(future, what)))
        if self._open:
            self._sleep(self._open[0][0] - now)

    def _message(self, future: Future[Any], what: Description) -> str:
        awaited = what or (future.waiting_for() if isinstance(future, Task) else future.what)
        return f"rank {self._endpoint.rank} waited {self._seconds:g} s for {describe(awaited)}"


def _done(futures: Sequence[Future[Any]]) -> bool:
    for future in futures:  # noqa: SIM110 - a generator costs more than the answer
        if not future.done():
            return False
    return True
