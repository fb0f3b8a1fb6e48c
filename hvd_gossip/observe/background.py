"""Appends lines to a file from a thread of its own, so that neither a step nor the engine ever waits for a disk."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

R = TypeVar("R")

FLUSH_SECONDS = 0.25
"""A record is in the file at most this many seconds (and one write) after `append`."""

_log = logging.getLogger("hvd_gossip")


class BackgroundWriter(Generic[R]):
    """Formats and writes what `append` queues. `append` may be called from any thread and costs under a microsecond.

    The file always ends after a whole record, also when the process is killed: each batch is one unbuffered write. A
    write or a formatting that fails is logged once as an error naming the file; later records are dropped and training goes on.

    Args:
        path: the file, overwritten; missing parent directories are made.
        to_text: turns one record into its text (runs on the writer's thread).
        head: text that the file starts with.
        tail: gives the text that `close` ends it with.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self, path: Path, to_text: Callable[[R], str], head: str = "", tail: Callable[[], str] = lambda: ""
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._to_text = to_text
        self._tail = tail
        self._queue: deque[R] = deque()
        self._owner = os.getpid()
        self._stop = threading.Event()
        self._closing = threading.Lock()
        self._failed = False
        self._file = path.open("wb", buffering=0)
        self._write(lambda: head)
        self._thread = threading.Thread(target=self._run, name=f"hvd-gossip-{path.name}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def append(self, record: R) -> None:
        """Queues one record; ignored after `close`."""
        if not self._stop.is_set():
            self._queue.append(record)

    def close(self) -> None:
        """Writes what is queued, then the tail, and closes the file; done at interpreter exit if nobody did before.

        Further calls do nothing; neither does a forked child's: the file is its parent's.
        """
        if os.getpid() != self._owner:
            return
        with self._closing:
            if self._stop.is_set():
                return
            self._stop.set()
        self._thread.join()
        self._write(self._queued)
        self._write(self._tail)
        self._file.close()
        atexit.unregister(self.close)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self._write(self._queued)

    def _queued(self) -> str:
        texts = []
        while self._queue:
            texts.append(self._to_text(self._queue.popleft()))
        return "".join(texts)

    def _write(self, make_text: Callable[[], str]) -> None:
        if self._failed:
            self._queue.clear()
            return
        try:
            self._write_all(make_text().encode())
        except (OSError, TypeError, ValueError) as error:
            self._failed = True
            _log.error("cannot write %s (%s): nothing more is recorded there", self.path, error)

    def _write_all(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
