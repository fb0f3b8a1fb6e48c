"""AsySG-incon: one model in the memory of a host, which its workers read and write without locks.

Lian, Huang, Li, Liu: "Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization", NeurIPS 2015, Algorithm 2; without
locks as Recht, Re, Wright, Niu: "Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent", NIPS 2011.

All workers are processes of one host, and x lies in memory that they share (an MPI window). Worker i, at its own pace, has read
x^ element by element while others were writing it (an inconsistent read), makes its update u_i at x^, and

    x <- x + u_i(x^),    chunk by chunk, without a lock;    then x^ <- x, chunk by chunk.

The optimizer works on the private copy x^, and u_i is what it made of it. x is where it began and the sum of all updates, but for
those that are lost: an element is added to by load, add and store, and of two workers that do so in the same nanoseconds one may
overwrite the other. (The papers assume that an addition of one element is atomic; NumPy has no such instruction. What is lost is
one update of one element.) One worker alone shares nothing and is the wrapped optimizer.

x begins as the first rank's parameters, at the first step of any worker. In a pause nobody writes, and every worker's correction
leads to x; the first of those that paused writes it back when it resumes, so that parameters which were overwritten meanwhile
(hvd.broadcast_parameters) are the model from then on. An update that is not finite is refused, by chunk. Nobody waits for anybody
but in pauses, and for the memory, before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Algorithm, Context, Wait
from hvd_gossip.algorithms.parameter_server import difference, lead_to
from hvd_gossip.algorithms.settings import OUTER
from hvd_gossip.buffers.arrays import add_into, is_finite
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.errors import ConfigError
from hvd_gossip.tasks import Signal
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")
READY, GO, BEGIN = range(3)
HEADER = 64
"""Bytes before the parameters; the first eight are an int64, the age of x: 0 before x has begun, then 1 + the phase."""


class AsySGIncon(Algorithm):
    """x <- x + u(x^) in shared memory. Memory: a correction and x before the update; x itself once a host."""

    name = "asysg-incon"
    paper = (
        "Lian et al., Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization, NeurIPS 2015 (AsySG-incon)"
    )
    synchronous = False
    needs = "none"
    default_topology = "complete"
    orders = ("sequential",)
    heeds = OUTER
    central = True
    one_host = True
    overwritable = False
    memory = "2 x; the model once a host"
    good_for = "workers of one host, of any speed, on CPUs: no messages at all"
    bad_for = "several hosts and GPUs, which it refuses; updates are stale, and a few of an element may be lost"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        replica = context.replica
        if not all(isinstance(flat, np.ndarray) for flat in replica.flats):
            raise ConfigError(
                "algorithm 'asysg-incon' shares parameters in a host's memory, but these are on a GPU; use 'asgd' or 'adpsgd'"
            )
        self._ranks = list(context.topology.ranks)
        self._first = self._ranks[0]
        self._alone = len(self._ranks) == 1
        self._before = replica.companion()
        self._shared: list[Array] = []
        self._age = np.zeros(1, np.int64)
        self._paused = False
        self._begins = False
        self._ready: set[int] = set()
        self._opened = Signal("the shared memory")

    # `_shared`: of each chunk, its part of x, which all workers write. `_begins`: whether this rank writes x after a pause.

    def start(self) -> None:
        if not self._alone:
            spawn = self.context.endpoint.spawn
            self._tasks = [
                spawn(self._listen(), "tokens about the shared memory"),
                spawn(self._open(), "sharing memory"),
            ]

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        if self._alone:
            return update()
        replica = self.context.replica
        if not self._age[0]:
            yield self._begun
        replica.fold()
        self._before.copy_from(replica.flats)
        result = update()
        refused = sum(not self._exchange(chunk) for chunk in replica.chunks)
        self.context.post(lambda: self._count(refused))
        return result

    async def pause(self) -> None:
        if self._alone:
            return
        await self._begun()
        self._paused = True
        present = np.array([float(rank == self.context.endpoint.rank) for rank in self._ranks])
        await self.context.exact_average(f"{self.name}.{self.context.channel}.pause.{self.phase}", [present])
        self._begins = self._ranks[int(np.flatnonzero(present)[0])] == self.context.endpoint.rank
        for chunk, values in zip(self.context.replica.chunks, self._shared, strict=True):
            lead_to(chunk, values)

    async def rest(self) -> None:
        """Nobody waits for who does not step."""

    async def resume(self, phase: int | None = None) -> None:
        await self._go_on()
        self.phase = self.phase + 1 if phase is None else phase

    async def depart(self) -> None:
        if self._alone:
            return
        await self._begun()
        if self._begins:
            await self._go_on()
        for task in self._tasks:
            task.cancel()

    def _exchange(self, chunk: Chunk) -> bool:
        """Training thread: adds what the update made of the chunk to x, and reads x. Whether the update was finite."""
        shared, update = self._shared[chunk.index], difference(chunk, self._before.chunks[chunk.index])
        if not is_finite(update):
            return False
        add_into(shared, shared, update)
        chunk.x[...] = shared
        return True

    def _count(self, refused: int) -> None:
        self.context.counters.exchanges += 1
        for _ in range(refused):
            self.context.counters.refuse(self.context.endpoint.rank)

    async def _go_on(self) -> None:
        """After a pause: one worker writes what it has now, the others wait for that."""
        if not self._paused:
            return
        age = self.phase + 2
        if self._begins:
            for chunk, values in zip(self.context.replica.chunks, self._shared, strict=True):
                _write(chunk, values)
            self._age[0] = age
        await self.context.endpoint.poll(lambda: bool(self._age[0] >= age), "the shared parameters after a pause")
        self._paused = self._begins = False

    async def _begun(self) -> None:
        """x has begun as the first rank's parameters."""
        rank, channel = self.context.endpoint.rank, self.context.channel
        while not self._shared:
            await self._opened.wait()
        if rank == self._first:
            self._begin()
        elif not self._age[0]:
            self.context.endpoint.send(self._first, channel, bytes([BEGIN]))
            await self.context.endpoint.poll(
                lambda: bool(self._age[0] > 0), ("the shared parameters of rank", self._first)
            )

    def _begin(self) -> None:
        """On the first rank, in its first step or before it."""
        if not self._age[0]:
            for chunk, values in zip(self.context.replica.chunks, self._shared, strict=True):
                values[...] = chunk.source
            self._age[0] = 1

    async def _open(self) -> None:
        """The memory is made by a call that blocks: all come to it at one time."""
        endpoint, channel = self.context.endpoint, self.context.channel
        if endpoint.rank == self._first:
            while len(self._ready) < len(self._ranks) - 1:
                await self._opened.wait()
            for rank in self._ranks[1:]:
                endpoint.send(rank, channel, bytes([GO]))
        else:
            endpoint.send(self._first, channel, bytes([READY]))
            while self._first not in self._ready:
                await self._opened.wait()
        sizes = [-(-chunk.x.nbytes // HEADER) * HEADER for chunk in self.context.replica.chunks]
        memory = await endpoint.shared(HEADER + sum(sizes), f"{self.name}.{channel}", self._ranks)
        self._age = memory[:8].view(np.int64)
        self._shared = _cut(memory[HEADER:], self.context.replica.chunks, sizes)
        self._opened.set()

    async def _listen(self) -> None:
        while True:
            source, data = await self.context.endpoint.recv_any(self.context.channel)
            if data[0] == BEGIN:
                self._begin()
            else:
                self._ready.add(source)
                self._opened.set()


def _cut(memory: Array, chunks: list[Chunk], sizes: list[int]) -> list[Array]:
    """Each chunk's part of the memory, as its type; parts begin on cache lines."""
    starts = np.cumsum([0, *sizes]).tolist()
    return [
        memory[start : start + chunk.x.nbytes].view(chunk.x.dtype) for chunk, start in zip(chunks, starts, strict=False)
    ]


def _write(chunk: Chunk, values: Any) -> None:
    """values <- what the chunk holds with its correction, if that is finite."""
    total = chunk.source.copy()
    if chunk.pending:
        add_into(total, total, chunk.correction)
    if is_finite(total):
        values[...] = total
