"""The way of a command's output: to the agent's own, at once, with the end of it remembered."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import BinaryIO

TAIL_LINES, LINE_LIMIT = 20, 2000
PARTIAL_LINE_S = 0.2
"""How long the start of a line is held back for its end, so that the lines of several ranks do not mix."""
DRAIN_S = 0.5
"""How long to go on reading what a command's own children still write after its end."""
PIPE_BYTES = 1 << 20
"""The most that lies in a pipe unread, unless root has made it larger (Linux's pipe-max-size)."""


class Tail:
    """The last lines of what was written; a carriage return starts its line anew, as on a terminal."""

    def __init__(self, lines: int = TAIL_LINES) -> None:
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._unfinished: dict[int, bytes] = {}

    def feed(self, stream: int, data: bytes) -> None:
        """Adds what a stream (1: stdout, 2: stderr) wrote."""
        *whole, rest = (self._unfinished.get(stream, b"") + data).split(b"\n")
        self._lines.extend(_overwritten(line)[:LINE_LIMIT] for line in whole)
        self._unfinished[stream] = rest[-LINE_LIMIT:]

    def lines(self) -> list[str]:
        """The lines, those without an end last."""
        unfinished = [_overwritten(rest) for rest in self._unfinished.values() if rest]
        return [line.decode(errors="replace") for line in deque([*self._lines, *unfinished], self._lines.maxlen)]


def _overwritten(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class Stream:
    """One output of the command.

    Attributes:
        number: file descriptor that it is copied to, 1 or 2.
        source: file descriptor that it is read from.
        held: the start of a line that is held back.

    Args:
        log: a further file that it is copied to, or None.
        timestamps: whether each line begins with the time at which it is passed on.
    """

    def __init__(self, number: int, source: int, log: BinaryIO | None = None, timestamps: bool = False) -> None:
        self.number, self.source, self.held = number, source, b""
        self._log, self._timestamps = log, timestamps
        self._rewriting, self._at_start = False, True

    def receive(self) -> bytes:
        """What there is to read; empty at the end."""
        try:
            return os.read(self.source, 1 << 16)
        except OSError:  # a terminal's way to say that its other side is closed
            return b""

    def send(self, data: bytes) -> None:
        """Writes whole lines, and of a line that carriage returns rewrite (a progress bar) everything; holds the rest."""
        data = self.held + data
        end = data.rfind(b"\n") + 1
        self._rewriting = b"\r" in data[end:] or (self._rewriting and not end)
        if self._rewriting:
            end = len(data)
        self.held = data[end:]
        self._write(data[:end])

    def flush(self) -> None:
        """Writes what is held back."""
        data, self.held = self.held, b""
        self._write(data)

    def close(self) -> None:
        """Writes what is held back, and ends the further file."""
        self.flush()
        if self._log is not None:
            self._log.close()

    def _write(self, data: bytes) -> None:
        if self._timestamps and data:
            data = self._stamped(data)
        if self._log is not None:
            with suppress(OSError):  # a full disk must not end the training
                self._log.write(data)
        with suppress(OSError):  # the reader is gone: a signal will tell the command, a full pipe would only stop it
            while data:
                data = data[os.write(self.number, data) :]

    def _stamped(self, data: bytes) -> bytes:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S ").encode()
        begin = stamp if self._at_start else b""
        self._at_start = data.endswith(b"\n")
        ends, rest = (data[:-1], b"\n") if self._at_start else (data, b"")
        return begin + ends.replace(b"\n", b"\n" + stamp) + rest


class Relay(threading.Thread):
    """Copies the command's output until it ends."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        super().__init__(name="relay", daemon=True)
        self.tail = Tail()
        self._streams, self._open = streams, list(streams)
        self._selector = selectors.DefaultSelector()
        self._finish_by: float | None = None
        self._finish_read, self._finish_write = os.pipe()
        self._on_readable(self._finish_read, self._wake)
        for stream in streams:
            self._on_readable(stream.source, partial(self._copy, stream))

    def finish(self) -> None:
        """Once the command has ended: waits until everything that it wrote is copied."""
        self._finish_by = time.monotonic() + DRAIN_S
        os.close(self._finish_write)
        self.join()
        for stream in self._streams:
            stream.close()

    def run(self) -> None:
        while self._open and (self._finish_by is None or time.monotonic() < self._finish_by):
            ready = self._selector.select(self._timeout())
            for key, _ in ready:
                key.data()
            if not ready:
                self._flush()
        self._drain()
        self._flush()

    def _drain(self) -> None:
        """Copies what has been written by now: this thread may be late, or its reader have stood still until the time was up."""
        left = PIPE_BYTES * len(self._open)  # a child may write for ever
        while left > 0 and (ready := self._selector.select(0)):
            left -= sum(key.data() for key, _ in ready)

    def _on_readable(self, source: int, action: Callable[[], int]) -> None:
        self._selector.register(source, selectors.EVENT_READ, action)

    def _timeout(self) -> float | None:
        waiting = self._finish_by is not None or any(stream.held for stream in self._open)
        return PARTIAL_LINE_S if waiting else None

    def _wake(self) -> int:
        self._selector.unregister(self._finish_read)
        return 0

    def _copy(self, stream: Stream) -> int:
        """Copies what there is; how many bytes that was."""
        data = stream.receive()
        self.tail.feed(stream.number, data)
        if data:
            stream.send(data)
        else:
            stream.flush()
            self._open.remove(stream)
            self._selector.unregister(stream.source)
        return len(data)

    def _flush(self) -> None:
        for stream in self._open:
            stream.flush()
