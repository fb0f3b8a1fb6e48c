"""Ring allreduce, chunk by chunk: reduce-scatter, then allgather (Patarasu and Yuan, J. Parallel Distrib. Comput. 2009).

The vector is cut into lanes of n segments of at most one chunk. A lane's segment s starts at rank s, goes around the ring
collecting everybody's share, is finished (averaged, rounded) by rank s - 1, and goes around again as the result, so that
the result is the same bits on every rank. WINDOW lanes are under way together; every rank sends 2 (n - 1) / n of the bytes.

Partial sums travel in chunk buffers, never in the result's memory, and in float32 for half types except on the first hop,
where a segment is still what one rank put in. Two ranks' ring is the direct exchange of halves.

Every wait for a buffer or a send ends: it is for the right-hand neighbour to post a receive that precedes all that this
rank has posted, so a circle of such waits would have to go down for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from hvd_gossip.collectives.flow import WINDOW, ChunkPool, Receives, SendQueue, Transfer
from hvd_gossip.collectives.lanes import Lanes
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.tasks import Future
from hvd_gossip.transport.endpoint import Array


class _Slot(NamedTuple):
    """A receive: in which step, of which lane, which elements, and the buffer used, if any."""

    step: int
    lane: int
    start: int
    stop: int
    buffer: Any


class RingAllreduce:
    """target <- the reduction of every rank's source. `target` may be `source`; they are cut into the same arrays."""

    def __init__(self, transfer: Transfer, source: Vector, target: Vector, reduction: Reduction) -> None:
        self._source, self._target, self._reduction = source, target, reduction
        self._size = size = len(transfer.ranks)
        self._me = me = transfer.position
        self._memory = memory = transfer.memory
        self._lanes = lanes = Lanes(source.length, size, transfer.chunk_length(reduction.accumulator))
        self._receives = Receives(transfer, me - 1)
        self._sends = SendQueue(transfer, me + 1, self._receives.abort)
        self._pool = ChunkPool(memory, lanes.longest, reduction.accumulator, 2 * WINDOW + 1)
        self._first_pool = ChunkPool(memory, lanes.longest, reduction.dtype, WINDOW)
        self._scratch = ChunkPool(memory, lanes.longest, reduction.accumulator, 1)
        self._own_sent: dict[int, Future[None]] = {}

    async def run(self) -> None:
        """Carries it out.

        Raises:
            TransportError: a peer failed.
        """
        schedule = self._schedule()
        try:
            await self._begin(range(min(WINDOW, self._lanes.count)))
            ahead = next(schedule, None)
            while ahead is not None or len(self._receives):
                while ahead is not None and len(self._receives) < WINDOW:
                    await self._post(*ahead)
                    ahead = next(schedule, None)
                await self._handle(await self._receives.next())
            await self._sends.drained()
        finally:
            self._receives.cancel()

    def _schedule(self) -> Iterator[tuple[int, int]]:
        """(step, lane) of every receive, in the order in which the left-hand neighbour sends."""
        for first in range(0, self._lanes.count, WINDOW):
            for step in range(2 * self._size - 2):
                for lane in range(first, min(first + WINDOW, self._lanes.count)):
                    yield step, lane

    async def _begin(self, lanes: range) -> None:
        """Sends the own segments of some lanes on their way."""
        for lane in lanes:
            start, stop = self._lanes.bounds(lane, self._me)
            if start == stop:
                continue
            view = self._source.view(start, stop)
            if view is not None:
                self._own_sent[lane] = Future(("the own chunk of lane", lane, "to be sent"))
                self._sends.put(view, partial(self._own_sent[lane].set_result, None))
            else:
                buffer = await self._first_pool.take()
                with self._memory.computing():
                    chunk = self._source.read(start, stop, buffer)
                self._sends.put(chunk, partial(self._first_pool.give, buffer))

    async def _post(self, step: int, lane: int) -> None:
        reduces = step < self._size - 1
        start, stop = self._lanes.bounds(lane, self._me - step - 1 if reduces else self._me - step + self._size - 1)
        if start == stop:
            self._receives.skip(_Slot(step, lane, start, stop, None))
            return
        into = None if reduces else self._target.view(start, stop)
        buffer = None
        if into is None:
            buffer = await self._pool.take()
            into = (buffer if reduces and step else buffer.view(self._reduction.dtype))[: stop - start]
        elif step == self._size - 1 and lane in self._own_sent:
            # The result comes to where the own segment may still be being sent from.
            await self._own_sent.pop(lane)
        await self._receives.post(into, _Slot(step, lane, start, stop, buffer))

    async def _handle(self, slot: _Slot) -> None:
        """A chunk has come: adds the own share, or takes the result; and passes it on."""
        last = slot.step == 2 * self._size - 3
        if slot.start < slot.stop:
            if slot.step < self._size - 2:
                await self._add(slot)
            elif slot.step == self._size - 2:
                await self._finish(slot)
            else:
                self._take(slot, last)
        if slot.step == 2 * self._size - 4 and self._ends_group(slot.lane):
            await self._begin(range(slot.lane + 1, min(slot.lane + 1 + WINDOW, self._lanes.count)))

    def _ends_group(self, lane: int) -> bool:
        return (lane + 1) % WINDOW == 0 and lane + 1 < self._lanes.count

    async def _add(self, slot: _Slot) -> None:
        """Adds the own share to a partial sum."""
        reduction, (_, _, start, stop, buffer) = self._reduction, slot
        received = total = buffer
        if reduction.widened and slot.step == 0:
            received, total = buffer.view(reduction.dtype), await self._pool.take()
        with self._memory.computing():
            for low, high, own in self._source.pieces(start, stop):
                reduction.combine(total[low:high], received[low:high], own)
        if total is not buffer:
            self._pool.give(buffer)
        self._forward(total[: stop - start], total)

    async def _finish(self, slot: _Slot) -> None:
        """Adds the own share, the last one, and makes the result of the sum."""
        reduction, (_, _, start, stop, buffer) = self._reduction, slot
        length, whole = stop - start, self._target.view(start, stop)
        raw = buffer.view(reduction.dtype)
        received = raw if slot.step == 0 else buffer
        result = raw[:length] if whole is None else whole
        total, scratch = result, None
        if reduction.widened:
            scratch = await self._scratch.take()
            total = scratch[:length]
        with self._memory.computing():
            for low, high, own in self._source.pieces(start, stop):
                reduction.combine(total[low:high], received[low:high], own)
            reduction.finish(result, total)
            if whole is None:
                self._target.write(start, stop, result)
        if scratch is not None:
            self._scratch.give(scratch)
        if whole is None:
            self._forward(result, buffer)
        else:
            self._pool.give(buffer)
            self._forward(result, None)

    def _take(self, slot: _Slot, last: bool) -> None:
        """Takes a chunk of the result."""
        _, _, start, stop, buffer = slot
        if buffer is None:
            chunk = self._target.view(start, stop)
        else:
            chunk = buffer.view(self._reduction.dtype)[: stop - start]
            with self._memory.computing():
                self._target.write(start, stop, chunk)
        if not last:
            self._forward(chunk, buffer)
        elif buffer is not None:
            self._pool.give(buffer)

    def _forward(self, chunk: Array, buffer: Array | None) -> None:
        """Sends a chunk on; a buffer that it lies in is free afterwards."""
        if buffer is None:
            self._sends.put(chunk)
        else:
            self._sends.put(chunk, partial(self._pool.give, buffer))
