"""The server of `asgd`: a shard of the parameters in a rank's engine, served beside the rank's own training.

Requests are served one at a time, in order of arrival, so what a worker reads of a shard is of one version (the consistent read
of AsySG-con), and buffers do not grow with the number of workers. A worker answers its part of a request at once, from its
engine: one that computes for long holds nobody up.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.lanes import LANES
from hvd_gossip.buffers.arrays import add_into, add_scaled, is_finite, module_of
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.tasks import Future, Signal, all_of
from hvd_gossip.transport.endpoint import Array

UPDATE, FETCH, GONE = range(3)
TOKEN = struct.Struct("<bq")
"""To a server: the kind of request, and the version of the shard that the update was made at."""
REPLY = struct.Struct("<qq")
"""From a server: the version that it sends, and the staleness of the update."""
REPLIES, UP, DOWN = 1, 2, 2 + LANES
"""Channels, from the algorithm's first (which has the tokens): of replies; of updates and of parameters, a lane each."""


class Request(NamedTuple):
    """One worker's turn. `served`: for the server's own worker, done when its correction has what is new."""

    worker: int
    kind: int
    version: int
    served: Future[int] | None


class ParameterServer:
    """Keeps some chunks of all workers' model. Owner: the engine's thread, but for `begin`.

    Args:
        context: the algorithm's.
        shard: the chunks of this rank's replica that it keeps for all; their parameters are where the model begins.
        before: of each chunk of the replica, x as it was before this rank's last update.

    Attributes:
        version: how many (averages of) updates were applied to the shard.
    """

    def __init__(self, context: Context, shard: Sequence[Chunk], before: Sequence[Array]) -> None:
        self.version = 0
        self._context = context
        self._shard = shard
        self._before = before
        space = context.replica.space
        self._values = [space.zeros(chunk.x.size, chunk.x.dtype) for chunk in shard]
        averaging = context.settings.softsync > 1
        self._sums = [space.zeros(chunk.x.size, chunk.x.dtype) for chunk in shard] if averaging else []
        self._collected = 0
        self._begun = False
        self._lock = threading.Lock()
        self._others = set(context.topology.ranks) - {context.endpoint.rank}
        self._requests: deque[Request] = deque()
        self._busy = False
        self._paused = False
        self._changed = Signal("a request or a departure")

    def start(self) -> None:
        spawn = self._context.endpoint.spawn
        self._tasks = [spawn(self._listen(), "requests of the workers"), spawn(self._serve(), "serving the workers")]

    def begin(self, guard: Callable[[Chunk], Any]) -> None:
        """Takes the replica's parameters as the model's, the first time: before this rank's first update, or when the first
        request comes.

        Args:
            guard: the space's context for the thread that calls: `training` or `engine`.
        """
        with self._lock:
            if not self._begun:
                self._begun = True
                for chunk, values in zip(self._shard, self._values, strict=True):
                    with guard(chunk):
                        values[...] = chunk.source

    async def own(self, kind: int, version: int) -> int:
        """This rank's own request; returns the version that the replica, with its correction, has afterwards."""
        served: Future[int] = Future("this rank's turn at its own shard")
        self._requests.append(Request(self._context.endpoint.rank, kind, version, served))
        self._changed.set()
        return await served

    async def pause(self) -> None:
        """While no worker updates: applies what was collected, and gives this rank's replica exactly what the shard has."""
        await self._changed.until(lambda: not self._busy and not self._requests)
        self._paused = True
        self.begin(self._context.replica.space.engine)
        if self._collected:
            for values, total in zip(self._values, self._sums, strict=True):
                self._apply_sum(values, total, self._collected)
            self._collected = 0
            self.version += 1
        for chunk, values in zip(self._shard, self._values, strict=True):
            lead_to(chunk, values)
            self._take(chunk, values)

    def resume(self) -> None:
        """Takes what the replica holds now: something else, if parameters were overwritten in the pause."""
        if self._paused:
            for chunk, values in zip(self._shard, self._values, strict=True):
                self._take(chunk, values)
            self._paused = False
            self._changed.set()

    async def linger(self) -> None:
        """Serves until every other worker has departed."""
        await self._changed.until(lambda: not self._others and not self._requests and not self._busy)
        for task in self._tasks:
            task.cancel()

    def _take(self, chunk: Chunk, values: Array) -> None:
        with self._context.replica.space.engine(chunk):
            total = chunk.source.copy()
            if chunk.pending:
                add_into(total, total, chunk.correction)
            if is_finite(total):
                values[...] = total

    async def _listen(self) -> None:
        while True:
            source, data = await self._context.endpoint.recv_any(self._context.channel)
            kind, version = TOKEN.unpack(data)
            if kind == GONE:
                self._others.discard(source)
            else:
                self._requests.append(Request(source, kind, version, None))
            self._changed.set()

    def _next(self) -> Request | None:
        """The first request that may be served now: in a pause the shard is only read."""
        return next((each for each in self._requests if each.kind == FETCH or not self._paused), None)

    async def _serve(self) -> None:
        while True:
            await self._changed.until(lambda: self._next() is not None)
            request = self._next()
            assert request is not None
            self._requests.remove(request)
            self._busy = True
            self.begin(self._context.replica.space.engine)
            await self._answer(request)
            self._busy = False
            self._changed.set()

    async def _answer(self, request: Request) -> None:
        staleness, version = self.version - request.version, self.version
        share, size = self._share(staleness), 0
        if request.kind == UPDATE:
            self._collected += 1
            if self._collected >= min(self._context.settings.softsync, len(self._others) + 1):
                size, version, self._collected = self._collected, version + 1, 0
            self._context.counters.staleness[request.worker] = staleness
        if request.served is None:
            endpoint, channel = self._context.endpoint, self._context.channel
            await endpoint.send(request.worker, channel + REPLIES, REPLY.pack(version, staleness))
            lanes = [self._lane(lane, request, share, size) for lane in range(LANES)]
            await all_of([endpoint.spawn(lane, ("serving rank", request.worker)) for lane in lanes])
        else:
            newest = staleness == 0 and size == 1
            for index in range(len(self._shard)):
                self._serve_own(index, request.kind, share, size, newest)
            request.served.set_result(version)
        self.version = version

    def _share(self, staleness: int) -> float:
        """What an update counts: 1, or 1 / staleness (Zhang et al., equation 5)."""
        return 1.0 / max(1, staleness) if self._context.settings.staleness_aware else 1.0

    async def _lane(self, lane: int, request: Request, share: float, size: int) -> None:
        endpoint, space = self._context.endpoint, self._context.replica.space
        worker, channel = request.worker, self._context.channel
        for index in range(lane, len(self._shard), LANES):
            chunk, values = self._shard[index], self._values[index]
            wire = space.wire(chunk.x.size, chunk.x.dtype)
            if request.kind == UPDATE:
                await endpoint.recv(worker, channel + UP + lane, wire)
                with space.engine(chunk):
                    self._add(index, worker, space.fetch(wire), share, size)
            sending = values if space.direct else wire
            if not space.direct:
                with space.engine(chunk):
                    space.publish(values, wire)
            await space.settled(endpoint)
            await endpoint.send(worker, channel + DOWN + lane, sending)

    def _serve_own(self, index: int, kind: int, share: float, size: int, newest: bool) -> None:
        chunk, values = self._shard[index], self._values[index]
        with chunk.space.engine(chunk):
            if kind == UPDATE:
                update = difference(chunk, self._before[chunk.index])
                finite = is_finite(update)
                if newest and finite:  # made at what the shard has: exactly what the wrapped optimizer made of it
                    values[...] = chunk.source
                    return
                self._add(index, self._context.endpoint.rank, update, share, size)
                if not finite:
                    return
        lead_to(chunk, values)

    def _add(self, index: int, worker: int, update: Array, share: float, size: int) -> None:
        """Applies an update, or puts it to those that are averaged; `size`: of the batch that it completes, or 0."""
        if not is_finite(update):
            self._context.counters.refuse(worker)
        elif size == 1:
            add_scaled(self._values[index], share, update)
        else:
            add_scaled(self._sums[index], share, update)
        if size > 1:
            self._apply_sum(self._values[index], self._sums[index], size)

    @staticmethod
    def _apply_sum(values: Array, total: Array, size: int) -> None:
        add_scaled(values, 1.0 / size, total)
        total.fill(0)


def difference(chunk: Chunk, before: Array) -> Array:
    """x - before, of x's type."""
    update = chunk.source.copy()
    add_scaled(update, -1.0, before)
    return update


def lead_to(chunk: Chunk, values: Array) -> None:
    """Engine: makes the correction what leads the chunk to the values."""
    with chunk.space.engine(chunk):
        chunk.correction[...] = values
        add_scaled(chunk.correction, -1.0, chunk.source)
        chunk.pending = bool(module_of(values).any(chunk.correction != 0))
