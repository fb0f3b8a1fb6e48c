"""A queue from any thread to one, whose reader may wait for a very short time.

Not `queue.SimpleQueue`: in CPython up to 3.12, its `get(timeout)` takes its free lock, looks again, and if the time
is over by then waits without a limit (a negative rest means "for ever" there). With time-outs of microseconds on a busy
machine that happens within seconds, and an engine that sleeps so never looks at its messages again.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from queue import Empty
from typing import Generic, TypeVar

T = TypeVar("T")


class MailSlot(Generic[T]):
    """Items in the order in which they were put. One thread calls `get`."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._signal = threading.Lock()
        self._signal.acquire()

    def put(self, item: T) -> None:
        """Adds an item and wakes the reader."""
        self._items.append(item)
        if not self._signal.locked():
            return  # the signal is given already; the reader, which has not taken it, will look after taking it
        with suppress(RuntimeError):  # another thread has just given it
            self._signal.release()

    def empty(self) -> bool:
        return not self._items

    def get(self, timeout: float | None) -> T:
        """The oldest item.

        Args:
            timeout: seconds to wait for one, at least 0; None waits for ever. The wait may end early, once after an item.

        Raises:
            queue.Empty: none came in time.
        """
        while not self._items:
            if not self._signal.acquire(timeout=-1 if timeout is None else timeout):
                raise Empty
            if timeout is not None and not self._items:
                raise Empty
        return self._items.popleft()
