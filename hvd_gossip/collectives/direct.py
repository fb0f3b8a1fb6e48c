"""Allreduce by direct exchange: every rank sends each other rank its share of that rank's segments, and gets results back.

As many bytes as around a ring, in 2 steps instead of 2 (n - 1), but from everybody to everybody: for few ranks. Whoever
owns a segment adds all shares in the order of the ranks, in float32 for half types, and rounds once.

Between two ranks the messages of lane l are C(l), the share, and R(l), the result, in the order C(0) C(1) R(0) C(2) R(1)...
so that with DEPTH = 2 a lane's exchange runs beside the next one's. A rank waits only for what precedes all that it has
sent and posted itself, so no circle of waits can close.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from hvd_gossip.collectives.flow import Receives, SendQueue, Transfer
from hvd_gossip.collectives.lanes import Lanes
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.tasks import Future
from hvd_gossip.transport.endpoint import Array

DEPTH = 2
"""So many lanes are under way."""


class _Unsent:
    """Sends under way whose memory is to be used again.

    Attributes:
        ranks: to whom.
        done: done when there are none any more.
    """

    __slots__ = ("done", "ranks")

    def __init__(self, what: str, lane: int) -> None:
        self.ranks: set[int] = set()
        self.done: Future[None] = Future(("sending a", what, "of lane", lane, "to ranks", self.ranks))


class DirectAllreduce:
    """target <- the reduction of every rank's source. `target` may be `source`; they are cut into the same arrays."""

    def __init__(self, transfer: Transfer, source: Vector, target: Vector, reduction: Reduction) -> None:
        self._source, self._target, self._reduction = source, target, reduction
        self._ranks = transfer.ranks
        self._memory = transfer.memory
        self._me = me = transfer.position
        size = len(transfer.ranks)
        self._lanes = Lanes(source.length, size, transfer.chunk_length(reduction.dtype))
        # Everybody begins with another peer, so that no rank is sent to by all at once.
        self._peers = [(me + step) % size for step in range(1, size)]
        self._receives = {peer: Receives(transfer, peer) for peer in self._peers}
        # A reference to `self` would be a cycle, and keep the buffers until the next garbage collection.
        abort = partial(_abort, list(self._receives.values()))
        self._sends = {peer: SendQueue(transfer, peer, abort) for peer in self._peers}
        self._buffers: dict[tuple[Any, ...], Array] = {}
        self._unsent: dict[tuple[str, int], _Unsent] = {}

    async def run(self) -> None:
        """Carries it out.

        Raises:
            TransportError: a peer failed.
        """
        count = self._lanes.count
        try:
            for lane in range(min(DEPTH, count)):
                await self._share(lane)
            for lane in range(count):
                await self._post_results(lane)
                await self._reduce(lane)
                if lane + DEPTH < count:
                    await self._share(lane + DEPTH)
                if lane >= DEPTH - 1:
                    await self._take_results(lane - DEPTH + 1)
            for lane in range(max(0, count - DEPTH + 1), count):
                await self._take_results(lane)
            for queue in self._sends.values():
                await queue.drained()
        finally:
            for receives in self._receives.values():
                receives.cancel()

    async def _share(self, lane: int) -> None:
        """Sends the peers their shares of a lane, and gets ready for theirs."""
        for peer in self._peers:
            low, high = self._lanes.bounds(lane, peer)
            if low < high:
                chunk = self._source.view(low, high)
                if chunk is None:
                    buffer = self._buffer("sent share", lane, peer)
                    with self._memory.computing():
                        chunk = self._source.read(low, high, buffer)
                self._send(peer, chunk, "share", lane)
        start, stop = self._lanes.bounds(lane, self._me)
        for peer in self._peers:
            if start == stop:
                self._receives[peer].skip(None)
            else:
                into = self._buffer("share", lane, peer)[: stop - start]
                await self._receives[peer].post(into, into)

    async def _reduce(self, lane: int) -> None:
        """Adds all shares of the own segment and sends the result."""
        shares = {peer: await self._receives[peer].next() for peer in self._peers}
        start, stop = self._lanes.bounds(lane, self._me)
        if start == stop:
            return
        await self._wait("result", lane - DEPTH)
        whole = self._target.view(start, stop)
        result = self._buffer("sent result", lane)[: stop - start] if whole is None else whole
        if self._reduction.widened:
            partial_sum = total = self._buffer("total", 0, dtype=self._reduction.accumulator)[: stop - start]
        else:
            # Not in the result's memory before the last addition: in place, it holds the own share. The first share's
            # buffer is free for it, since nothing before that share is a buffer.
            partial_sum, total = shares[min(self._peers)], result
        with self._memory.computing():
            for low, high, own in self._source.pieces(start, stop):
                first, *others, last = [
                    own if rank == self._me else shares[rank][low:high] for rank in range(len(self._ranks))
                ]
                for part in others:
                    self._reduction.combine(partial_sum[low:high], first, part)
                    first = partial_sum[low:high]
                self._reduction.combine(total[low:high], first, last)
            self._reduction.finish(result, total)
            if whole is None:
                self._target.write(start, stop, result)
        for peer in self._peers:
            self._send(peer, result, "result", lane)

    async def _post_results(self, lane: int) -> None:
        # In place, a peer's result comes to where its share may still be being sent from.
        await self._wait("share", lane)
        for peer in self._peers:
            start, stop = self._lanes.bounds(lane, peer)
            if start == stop:
                self._receives[peer].skip(None)
                continue
            view = self._target.view(start, stop)
            into = self._buffer("result", lane, peer)[: stop - start] if view is None else view
            await self._receives[peer].post(into, into)

    async def _take_results(self, lane: int) -> None:
        for peer in self._peers:
            chunk = await self._receives[peer].next()
            start, stop = self._lanes.bounds(lane, peer)
            if start < stop and self._target.view(start, stop) is None:
                with self._memory.computing():
                    self._target.write(start, stop, chunk)

    def _send(self, peer: int, chunk: Array, what: str, lane: int) -> None:
        if (what, lane) not in self._unsent:
            self._unsent[what, lane] = _Unsent(what, lane)
        self._unsent[what, lane].ranks.add(self._ranks[peer])
        self._sends[peer].put(chunk, partial(self._finish_send, what, lane, self._ranks[peer]))

    def _finish_send(self, what: str, lane: int, rank: int) -> None:
        unsent = self._unsent[what, lane]
        unsent.ranks.discard(rank)
        if not unsent.ranks:
            del self._unsent[what, lane]
            unsent.done.set_result(None)

    async def _wait(self, what: str, lane: int) -> None:
        """Until the memory of what a lane sent may change."""
        unsent = self._unsent.get((what, lane))
        if unsent is not None:
            await unsent.done

    def _buffer(self, what: str, lane: int, peer: int = 0, dtype: Any = None) -> Array:
        """A buffer of one chunk, used again DEPTH lanes later."""
        key = what, lane % DEPTH, peer
        if key not in self._buffers:
            self._buffers[key] = self._memory.empty(self._lanes.longest, dtype or self._reduction.dtype)
        return self._buffers[key]


def _abort(receives: Sequence[Receives], error: BaseException) -> None:
    for one in receives:
        one.abort(error)
