"""Chunks on their way: a window of sends in order, and chunk buffers that are used again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hvd_gossip.collectives.memory import HOST, Memory
from hvd_gossip.errors import TransportError
from hvd_gossip.tasks import Cancelled, Future, Signal
from hvd_gossip.transport.endpoint import Array, Endpoint

CHUNK_BYTES = 512 << 10
"""A chunk should fit in a core's L2 cache twice, since it is received and added right away."""
WINDOW = 4
"""So many chunks are under way in each direction."""


@dataclass(frozen=True)
class Transfer:
    """What the algorithms of one operation share.

    Attributes:
        ranks: who takes part; every one of them runs the same algorithm on the same channel.
        channel: nothing else travels on it between these ranks meanwhile.
        chunk_bytes: of the pieces that arrays are cut into.
        memory: where the arrays live.
    """

    endpoint: Endpoint
    ranks: Sequence[int]
    channel: int
    chunk_bytes: int = CHUNK_BYTES
    memory: Memory = HOST

    @property
    def position(self) -> int:
        """This rank's index among the ranks."""
        return self.ranks.index(self.endpoint.rank)

    def chunk_length(self, dtype: np.dtype[Any]) -> int:
        """Elements of a chunk."""
        return max(1, self.chunk_bytes // dtype.itemsize)


class Receives:
    """Receives posted ahead, in order, from one peer.

    Args:
        peer: index of a rank of the transfer, taken modulo their number.
    """

    def __init__(self, transfer: Transfer, peer: int) -> None:
        self._endpoint = transfer.endpoint
        self._source = transfer.ranks[peer % len(transfer.ranks)]
        self._channel = transfer.channel
        self._memory = transfer.memory
        self._posted: deque[tuple[Future[None], Array, Array, Any]] = deque()
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._posted)

    async def post(self, into: Array, what: Any) -> None:
        """Posts a receive; `what` comes back from `next` with it."""
        wire = await self._memory.prepare(into) if self._memory.on_device else into
        self._posted.append((self._endpoint.recv(self._source, self._channel, wire), wire, into, what))

    def skip(self, what: Any) -> None:
        """Takes the place of a receive of nothing: no message is sent for an empty chunk."""
        self._posted.append((_NOTHING, None, None, what))

    async def next(self) -> Any:
        """Waits for the oldest receive; returns its `what`.

        Raises:
            TransportError: it failed, or `abort` was called.
        """
        if self._error is None:
            try:
                await self._posted[0][0]
            except Cancelled:
                if self._error is None:
                    raise
            else:
                return self._accept(*self._posted.popleft())
        assert self._error is not None
        raise self._error

    def abort(self, error: BaseException) -> None:
        """Fails whoever waits in `next`: nothing more can be received usefully."""
        self._error = error
        self.cancel()

    def cancel(self) -> None:
        """Withdraws what is posted, so that no memory is written to any more."""
        for future, *_ in self._posted:
            future.cancel()

    def _accept(self, _: Future[None], wire: Array, into: Array, what: Any) -> Any:
        if self._memory.on_device and into is not None:
            self._memory.accept(wire, into)
        return what


class SendQueue:
    """Sends chunks to one peer, in order, at most `WINDOW` at a time.

    Nothing is awaited by the caller but, at the end, `drained`.

    Args:
        peer: index of a rank of the transfer, taken modulo their number.
        on_error: called when a send has failed, to wake who waits for something else.
    """

    def __init__(self, transfer: Transfer, peer: int, on_error: Callable[[BaseException], None]) -> None:
        self._endpoint = transfer.endpoint
        self._dest = transfer.ranks[peer % len(transfer.ranks)]
        self._channel = transfer.channel
        self._memory = transfer.memory
        self._on_error = on_error
        self._backlog: deque[tuple[Array, Callable[[], None]]] = deque()
        self._published: deque[tuple[Future[None], Array, Callable[[], None]]] = deque()
        self._outstanding = 0
        self._pumping = False
        self._error: BaseException | None = None
        self._moved = Signal(("chunks to be sent to rank", self._dest))

    def put(self, chunk: Array, then: Callable[[], None] = lambda: None) -> None:
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
            if self._memory.on_device:
                self._publish(chunk, then)
            else:
                self._send(chunk, then)
        self._pumping = False

    def _publish(self, chunk: Array, then: Callable[[], None]) -> None:
        wire, there, release = self._memory.publish(chunk)

        def sent() -> None:
            release()
            then()

        self._published.append((there, wire, sent))
        there.add_callback(lambda _: self._send_published())

    def _send_published(self) -> None:
        while self._published and self._published[0][0].done():
            _, wire, sent = self._published.popleft()
            self._send(wire, sent)

    def _send(self, chunk: Array, then: Callable[[], None]) -> None:
        try:
            future = self._endpoint.send(self._dest, self._channel, chunk)
        except TransportError as error:
            self._fail(error, then)
        else:
            future.add_callback(partial(self._finish, then))

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
    """At most `limit` chunk buffers of one length, made on demand."""

    def __init__(self, memory: Memory, length: int, dtype: np.dtype[Any], limit: int) -> None:
        self._memory = memory
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
        return self._memory.empty(self._length, self._dtype)

    def give(self, buffer: Array) -> None:
        """A buffer is free again."""
        self._free.append(buffer)
        self._freed.set()
