"""Allreduce by recursive halving and doubling (Thakur, Rabenseifner and Gropp, "Optimization of collective communication
operations in MPICH", IJHPCA 2005), lane by lane.

Among n = 2^k ranks: k times, exchange the half of the range that the partner keeps for its share of the half that this
rank keeps, and add; the one segment that is left is finished; then the ranges double again, the same way back. As many
bytes as around a ring in 2 k messages instead of 2 (n - 1), but half of them between the most distant ranks. Half types
travel as they are once, then as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hvd_gossip.collectives.flow import Receives, SendQueue, Transfer
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.transport.endpoint import Array

LANE_CHUNKS = 16
"""A lane is at most so many chunks; the buffers are three quarters of it."""


class HalvingAllreduce:
    """target <- the reduction of every rank's source, among a power of two of ranks. `target` may be `source`; they are
    cut into the same arrays."""

    def __init__(self, transfer: Transfer, source: Vector, target: Vector, reduction: Reduction) -> None:
        self._source, self._target, self._reduction = source, target, reduction
        self._memory = transfer.memory
        self._lane = LANE_CHUNKS * transfer.chunk_length(reduction.accumulator)
        self._start = self._length = 0
        self._buffers: dict[tuple[str, int], Array] = {}
        self._size = len(transfer.ranks)
        if self._size & (self._size - 1):
            raise ValueError(f"{self._size} ranks are not a power of two")
        self._me = transfer.position
        self._distances = [1 << bit for bit in reversed(range(self._size.bit_length() - 1))]
        peers = [self._me ^ distance for distance in self._distances]
        self._receives = {peer: Receives(transfer, peer) for peer in peers}
        # Not a method of this object: a cycle would keep the buffers until the next garbage collection.
        abort = partial(_abort, list(self._receives.values()))
        self._sends = {peer: SendQueue(transfer, peer, abort) for peer in peers}

    async def run(self) -> None:
        """Carries it out.

        Raises:
            TransportError: a peer failed.
        """
        try:
            for start in range(0, self._source.length, self._lane):
                self._start = start
                self._length = min(self._lane, self._source.length - self._start)
                await self._halve()
                # In place, results come to where shares may still be being sent from; and buffers are used again.
                await self._drain()
                await self._double()
                await self._drain()
        finally:
            for receives in self._receives.values():
                receives.cancel()

    async def _halve(self) -> None:
        low, total = 0, None
        for distance in self._distances:
            middle = low + distance
            keep, give = (low, middle) if self._me < middle else (middle, low)
            given, kept = self._bounds(give, distance), self._bounds(keep, distance)
            origin = self._bounds(low, 2 * distance)[0]
            share = self._read(self._source, *given) if total is None else total[given[0] - origin : given[1] - origin]
            first = total is None
            into = self._buffer("received", distance, kept, self._reduction.dtype if first else None)
            await self._exchange(self._me ^ distance, share, into)
            own = None if total is None else total[kept[0] - origin : kept[1] - origin]
            total = self._add(into, own, kept, distance)
            low = keep
        assert total is not None
        start, stop = self._bounds(low, 1)
        with self._memory.computing():
            for begin, end, view in self._target.pieces(start, stop):
                self._reduction.finish(view, total[begin:end])

    async def _double(self) -> None:
        low = self._me
        for distance in reversed(self._distances):
            result = self._read(self._target, *self._bounds(low, distance))
            wanted = start, stop = self._bounds(low ^ distance, distance)
            view = self._target.view(start, stop) if start < stop else None
            into = self._buffer("result", distance, wanted, self._reduction.dtype) if view is None else view
            await self._exchange(self._me ^ distance, result, into)
            if view is None:
                with self._memory.computing():
                    self._target.write(start, stop, into)
            low = min(low, low ^ distance)

    def _bounds(self, segment: int, count: int) -> tuple[int, int]:
        """The elements of `count` segments of the lane from one on."""
        start, length, size = self._start, self._length, self._size
        return start + length * segment // size, start + length * (segment + count) // size

    def _buffer(self, what: str, distance: int, bounds: tuple[int, int], dtype: np.dtype[Any] | None = None) -> Array:
        """A buffer for these elements; the next lane gets the same one."""
        key, length = (what, distance), bounds[1] - bounds[0]
        if key not in self._buffers or len(self._buffers[key]) < length:
            self._buffers[key] = self._memory.empty(length, dtype or self._reduction.accumulator)
        return self._buffers[key][:length]

    def _read(self, vector: Vector, start: int, stop: int) -> Array:
        view = vector.view(start, stop) if start < stop else None
        if view is not None:
            return view
        with self._memory.computing():
            return vector.read(start, stop, self._memory.empty(stop - start, self._reduction.dtype))

    async def _exchange(self, peer: int, chunk: Array, into: Array) -> None:
        """Sends a chunk to a peer and receives one; nothing is sent for an empty one."""
        if chunk.size:
            self._sends[peer].put(chunk)
        if into.size:
            await self._receives[peer].post(into, None)
            await self._receives[peer].next()

    def _add(self, received: Array, own: Array | None, kept: tuple[int, int], distance: int) -> Array:
        """The partner's share plus this rank's: the source's elements, until something was added to them."""
        reduction, total = self._reduction, received
        if received.dtype != reduction.accumulator:
            total = self._buffer("total", distance, kept)
        with self._memory.computing():
            if own is not None:
                reduction.combine(total, received, own)
            else:
                for low, high, view in self._source.pieces(*kept):
                    reduction.combine(total[low:high], received[low:high], view)
        return total

    async def _drain(self) -> None:
        for queue in self._sends.values():
            await queue.drained()


def _abort(receives: Sequence[Receives], error: BaseException) -> None:
    for one in receives:
        one.abort(error)
