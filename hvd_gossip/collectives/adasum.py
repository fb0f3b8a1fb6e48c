"""Adaptive summation (Maleki et al., "Scaling Distributed Training with Adaptive Summation", 2020).

Two vectors are combined as

    adasum(a, b) = (1 - a.b / (2 a.a)) a + (1 - a.b / (2 b.b)) b,

their sum if they are orthogonal and their average if they are parallel; 2^k vectors are combined pair by pair, then pairs of
pairs (equation 3 of the paper). A factor whose divisor is 0 is 1, so that zeros change nothing.

Distributed as the paper's algorithm 1: vectors are halved while the distance of the partners doubles; each time, the ranks
that hold the pieces of two vectors add up the dot products of their pieces, in float64, before they combine them. Dot
products are of each tensor by itself, however many travel together. Half types are combined in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from hvd_gossip.buffers.arrays import module_of
from hvd_gossip.collectives.flow import WINDOW, Receives, SendQueue, Transfer
from hvd_gossip.collectives.reduction import accumulator_dtype
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.transport.endpoint import Array

WIDE = np.dtype(np.float64)


def dots_of(a: Array, b: Array) -> Array:
    """(a.b, a.a, b.b) in float64, of 1-D arrays."""
    xp = module_of(a)
    wide_a, wide_b = a.astype(WIDE), b.astype(WIDE)
    return xp.stack([xp.dot(wide_a, wide_b), xp.dot(wide_a, wide_a), xp.dot(wide_b, wide_b)])


def factors_of(dots: Array) -> Array:
    """The factors of a and b, from rows of (a.b, a.a, b.b)."""
    xp = module_of(dots)
    squares = dots[..., 1:]
    return 1 - xp.where(squares == 0, 0, dots[..., :1] / (2 * xp.where(squares == 0, 1, squares)))


def adasum_all(parts: Sequence[Array], out: Array, factor: float) -> None:
    """out <- the adaptive sum of a power of two of 1-D arrays, times a factor."""
    level: list[Array] = [part.astype(accumulator_dtype(out.dtype)) for part in parts]
    while len(level) > 1:
        level = [_combine(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    out[...] = level[0] * level[0].dtype.type(factor)


def _combine(a: Array, b: Array) -> Array:
    ours, theirs = factors_of(dots_of(a, b)).astype(a.dtype)
    return a * ours + b * theirs


class _Step(NamedTuple):
    """One halving: the partner, and which elements of the vector this rank kept and gave."""

    peer: int
    keep: tuple[int, int]
    give: tuple[int, int]


class AdasumAllreduce:
    """target <- the adaptive sum of every rank's source times a factor, among a power of two of ranks, tensor by tensor.

    Args:
        source, target: cut into the same arrays; `target` may be `source`.
    """

    def __init__(self, transfer: Transfer, source: Vector, target: Vector, factor: float) -> None:
        self._source, self._target, self._factor = source, target, factor
        self._memory = transfer.memory
        self._accumulator = accumulator_dtype(source.dtype)
        self._chunk = transfer.chunk_length(self._accumulator)
        self._me = transfer.position
        self._bits = len(transfer.ranks).bit_length() - 1
        if len(transfer.ranks) != 1 << self._bits:
            raise ValueError(f"{len(transfer.ranks)} ranks are not a power of two")
        self._total: Array = None
        self._low = 0
        peers = [self._me ^ (1 << bit) for bit in range(self._bits)]
        self._receives = {peer: Receives(transfer, peer) for peer in peers}
        abort = partial(_abort, list(self._receives.values()))
        self._sends = {peer: SendQueue(transfer, peer, abort) for peer in peers}

    async def run(self) -> None:
        """Carries it out.

        Raises:
            TransportError: a peer failed.
        """
        steps = []
        bounds = 0, self._source.length
        try:
            for bit in range(self._bits):
                steps.append(await self._halve(bit, *bounds))
                bounds = steps[-1].keep
            # In place, results come to where shares may still be being sent from.
            await self._drain()
            self._finish(*bounds)
            for step in reversed(steps):
                await self._double(step)
            await self._drain()
        finally:
            for receives in self._receives.values():
                receives.cancel()

    async def _halve(self, bit: int, low: int, high: int) -> _Step:
        """Swaps halves with a partner and combines the kept one."""
        peer, middle = self._me ^ (1 << bit), (low + high) // 2
        keep, give = (low, middle), (middle, high)
        if self._me > peer:
            keep, give = give, keep
        for start, stop in self._cut(*give):
            self._sends[peer].put(self._read(start, stop))
        received = self._memory.empty(keep[1] - keep[0], self._source.dtype if bit == 0 else self._accumulator)
        dots = self._zeros(len(self._source.bounds) - 1)

        def add_dots(start: int, stop: int) -> None:
            for tensor, begin, end, own in self._pieces(start, stop):
                theirs = received[begin - keep[0] : end - keep[0]]
                dots[tensor] += dots_of(own, theirs) if self._me < peer else dots_of(theirs, own)

        await self._receive(peer, keep, lambda start, stop: received[start - keep[0] : stop - keep[0]], add_dots)
        for group_bit in range(bit + 1):
            await self._add(self._me ^ (1 << group_bit), dots)
        with self._memory.computing():
            factors = factors_of(dots).astype(self._accumulator)
            self._combine(keep, received, factors if self._me < peer else factors[:, ::-1])
        return _Step(peer, keep, give)

    async def _receive(
        self,
        peer: int,
        bounds: tuple[int, int],
        into: Callable[[int, int], Array],
        arrived: Callable[[int, int], None],
    ) -> None:
        """Receives elements chunk by chunk: `into(start, stop)` is where to, `arrived(start, stop)` is called with each."""
        receives, cut = self._receives[peer], self._cut(*bounds)
        for start, stop in islice(cut, WINDOW):
            await receives.post(into(start, stop), (start, stop))
        while len(receives):
            done = await receives.next()
            with self._memory.computing():
                arrived(*done)
            for start, stop in islice(cut, 1):
                await receives.post(into(start, stop), (start, stop))

    def _combine(self, keep: tuple[int, int], received: Array, factors: Array) -> None:
        """The kept half becomes the total. `factors`: of the own and of the received values, by tensor."""
        total = self._memory.empty(keep[1] - keep[0], self._accumulator)
        for start, stop in self._cut(*keep):
            for tensor, begin, end, own in self._pieces(start, stop):
                part = slice(begin - keep[0], end - keep[0])
                total[part] = own * factors[tensor, :1]
                total[part] += received[part] * factors[tensor, 1:]
        self._total, self._low = total, keep[0]

    async def _add(self, peer: int, dots: Array) -> None:
        """dots <- the sum of a partner's and this rank's."""
        mine, theirs = self._zeros(len(dots)), self._zeros(len(dots))
        with self._memory.computing():
            mine[...] = dots
        self._sends[peer].put(mine.reshape(-1))
        await self._receives[peer].post(theirs.reshape(-1), None)
        await self._receives[peer].next()
        with self._memory.computing():
            dots += theirs

    def _finish(self, low: int, high: int) -> None:
        """The elements that only this rank has are the result, but for the factor."""
        with self._memory.computing():
            for begin, end, view in self._target.pieces(low, high):
                values = self._source_piece(low + begin, low + end) if self._total is None else self._total[begin:end]
                view[...] = values * self._accumulator.type(self._factor)

    def _source_piece(self, start: int, stop: int) -> Array:
        piece = self._source.view(start, stop)
        assert piece is not None  # the target is cut like the source
        return piece

    async def _double(self, step: _Step) -> None:
        """Swaps results with a partner."""
        for start, stop in self._cut(*step.keep):
            self._sends[step.peer].put(self._gathered(self._target, start, stop))
        scattered: dict[int, Array] = {}

        def into(start: int, stop: int) -> Array:
            view = self._target.view(start, stop)
            if view is None:
                view = scattered[start] = self._memory.empty(stop - start, self._target.dtype)
            return view

        def arrived(start: int, stop: int) -> None:
            if start in scattered:
                self._target.write(start, stop, scattered.pop(start))

        await self._receive(step.peer, step.give, into, arrived)

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        for begin in range(start, stop, self._chunk):
            yield begin, min(begin + self._chunk, stop)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int, Array]]:
        """This rank's values of some elements, tensor by tensor: (tensor, start, stop, values)."""
        bounds = self._source.bounds
        tensor = self._source.index_of(start)
        while start < stop:
            end = min(stop, bounds[tensor + 1])
            if end > start:
                low = self._low
                values = self._source_piece(start, end) if self._total is None else self._total[start - low : end - low]
                yield tensor, start, end, values
            start, tensor = max(start, end), tensor + 1

    def _read(self, start: int, stop: int) -> Array:
        """This rank's values of some elements, to be sent."""
        if self._total is not None:
            return self._total[start - self._low : stop - self._low]
        return self._gathered(self._source, start, stop)

    def _gathered(self, vector: Vector, start: int, stop: int) -> Array:
        view = vector.view(start, stop)
        if view is not None:
            return view
        with self._memory.computing():
            return vector.read(start, stop, self._memory.empty(stop - start, vector.dtype))

    def _zeros(self, count: int) -> Array:
        zeros = self._memory.empty(3 * count, WIDE).reshape(count, 3)
        with self._memory.computing():
            zeros[...] = 0
        return zeros

    async def _drain(self) -> None:
        for queue in self._sends.values():
            await queue.drained()


def _abort(receives: Sequence[Receives], error: BaseException) -> None:
    for one in receives:
        one.abort(error)
