"""Chunks on their way: a window of sends in order, and chunk buffers that are used again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hvd_gossip.buffers.arrays import module_of
from hvd_gossip.errors import TransportError
from hvd_gossip.tasks import Cancelled, Future, Signal
from hvd_gossip.transport.endpoint import Array, Endpoint

CHUNK_BYTES = 512 << 10
"""A chunk should fit in a core's L2 cache twice, since it is received and added right away."""
WINDOW = 4
"""So many chunks are under way in each direction."""


def _nothing() -> None: ...


class Receives:
    """Receives posted ahead, in order, from one peer on one channel."""

    def __init__(self, endpoint: Endpoint, source: int, channel: int) -> None:
        self._endpoint = endpoint
        self._source = source
        self._channel = channel
        self._posted: deque[tuple[Future[None], Any]] = deque()
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._posted)

    def post(self, into: Array, what: Any) -> None:
        """Posts a receive; `what` comes back from `next` with it."""
        self._posted.append((self._endpoint.recv(self._source, self._channel, into), what))

    def skip(self, what: Any) -> None:
        """Takes the place of a receive of nothing: no message is sent for an empty chunk."""
        self._posted.append((_NOTHING, what))

    async def next(self) -> Any:
        """Waits for the oldest receive; returns its `what`.

        Raises:
            TransportError: it failed, or `abort` was called.
        """
        if self._error is None:
            try:
                await self._posted[0][0]
                return self._posted.popleft()[1]
            except Cancelled:
                if self._error is None:
                    raise
        assert self._error is not None
        raise self._error

    def abort(self, error: BaseException) -> None:
        """Fails whoever waits in `next`: nothing more can be received usefully."""
        self._error = error
        self.cancel()

    def cancel(self) -> None:
        """Withdraws what is posted, so that no memory is written to any more."""
        for future, _ in self._posted:
            future.cancel()


class SendQueue:
    """Sends chunks to one peer on one channel, in order, at most `WINDOW` at a time.

    Nothing is awaited by the caller but, at the end, `drained`.

    Args:
        on_error: called when a send has failed, to wake who waits for something else.
    """

    def __init__(self, endpoint: Endpoint, dest: int, channel: int, on_error: Callable[[BaseException], None]) -> None:
        self._endpoint = endpoint
        self._dest = dest
        self._channel = channel
        self._on_error = on_error
        self._backlog: deque[tuple[Array, Callable[[], None]]] = deque()
        self._outstanding = 0
        self._pumping = False
        self._error: BaseException | None = None
        self._moved = Signal(("chunks to be sent to rank", dest))

    def put(self, chunk: Array, then: Callable[[], None] = _nothing) -> None:
        """Sends a chunk after those before it, and calls `then()` when its memory may change, or the send has failed."""
        self._backlog.append((chunk, then))
        self._pump()

    async def drained(self) -> None:
        """Waits until everything is sent.

        Raises:
            TransportError: a send failed.
        """
        while (self._backlog or self._outstanding) and self._error is None:
            await self._moved.wait()
        if self._error is not None:
            raise self._error

    def _pump(self) -> None:
        if self._pumping:  # by a send that was done at once: the loop below goes on
            return
        self._pumping = True
        while self._backlog and self._outstanding < WINDOW:
            chunk, then = self._backlog.popleft()
            self._outstanding += 1
            try:
                future = self._endpoint.send(self._dest, self._channel, chunk)
            except TransportError as error:
                self._fail(error, then)
            else:
                future.add_callback(partial(self._finish, then))
        self._pumping = False

    def _finish(self, then: Callable[[], None], future: Future[None]) -> None:
        error = future.error()
        if error is not None:
            self._fail(error, then)
            return
        self._outstanding -= 1
        then()
        if self._backlog:
            self._pump()
        elif not self._outstanding:
            self._moved.set()

    def _fail(self, error: BaseException, then: Callable[[], None]) -> None:
        self._error = error
        self._on_error(error)
        waiting = [then, *(one for _, one in self._backlog)]
        self._backlog.clear()
        for one in waiting:
            one()
        self._moved.set()


_NOTHING: Future[None] = Future("nothing")
_NOTHING.set_result(None)


class ChunkPool:
    """At most `limit` buffers of one size, made on demand.

    Args:
        like: an array of the module and device that the buffers shall be of.
        length: elements of a buffer.
    """

    def __init__(self, like: Array, length: int, dtype: np.dtype[Any], limit: int) -> None:
        self._like = like
        self._length = length
        self._dtype = dtype
        self._limit = limit
        self._free: list[Array] = []
        self._freed = Signal("a chunk buffer whose chunk is sent")

    async def take(self) -> Array:
        """A buffer, as soon as one is free."""
        while not self._free and not self._limit:
            await self._freed.wait()
        if self._free:
            return self._free.pop()
        self._limit -= 1
        return module_of(self._like).empty(self._length, self._dtype)

    def give(self, buffer: Array) -> None:
        """A buffer is free again."""
        self._free.append(buffer)
        self._freed.set()
