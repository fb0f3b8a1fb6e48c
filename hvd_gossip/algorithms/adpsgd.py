"""AD-PSGD: asynchronous decentralized parallel stochastic gradient descent.

Lian, Zhang, Zhang, Liu: "Asynchronous Decentralized Parallel Stochastic Gradient Descent", ICML 2018, Algorithm 1.

No barrier and no common clock. Worker i takes a gradient g at its (possibly stale) x_i; meanwhile it averages with one random
neighbour j,

    x_i, x_j <- (x_i + x_j) / 2,          then          x_i <- x_i + u_i(g).

The graph is bipartite: initiators start exchanges, responders always answer, so no cycle of workers can wait for each other.

Chunk by chunk, i sends s_i = x_i + c_i as it reads it and receives s_j; i adds (s_j - s_i)/2 to its correction c_i, j adds
(s_i - s_j)/2 to its own. Whatever s was, torn or stale, the sum over all workers of x + c does not change. A worker applies its
correction inside its step and never waits for a peer. Who dies is met no more; what its last exchange had brought by then stays,
and the mean of the others moves by that. An initiator exchanges once a step of its own (or every mixing_period
steps); one whose steps are slower than its partners' keeps its partners' pace, so that a straggler's model stays near the mean.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Algorithm, Context, Wait
from hvd_gossip.algorithms.lanes import Lanes
from hvd_gossip.algorithms.limit import Limit
from hvd_gossip.algorithms.pace import Pace
from hvd_gossip.algorithms.settings import OUTER
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.errors import PeerFailedError
from hvd_gossip.tasks import Future, Signal
from hvd_gossip.transport.endpoint import Array

log = logging.getLogger("hvd_gossip")
R = TypeVar("R")
REQUEST, GONE, FAREWELL = 0, 1, 2
_TOKEN = struct.Struct("<bqd")
"""Kind, steps taken, seconds a step of the sender's."""
ANSWERS_AT_ONCE = 2
"""Exchanges that a responder carries on side by side; further requests wait their turn in order of arrival."""


class ADPSGD(Algorithm):
    """Pairwise averaging with random neighbours, beside the gradient. Memory: one correction."""

    name = "adpsgd"
    paper = "Lian et al., Asynchronous Decentralized Parallel Stochastic Gradient Descent, ICML 2018"
    synchronous = False
    needs = "bipartite"
    default_topology = "complete"
    orders = ("overlap",)
    heeds = frozenset({"mixing_period", "wire_dtype", *OUTER})
    memory = "1 x"
    good_for = "stragglers, workers of different or changing speed, shared clusters"
    bad_for = "strongly skewed data; results depend on timing"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings, endpoint = context.settings, context.endpoint
        initiators, neighbours = context.topology.pairing
        self._neighbours = tuple(neighbours.get(endpoint.rank, ()))
        self._initiates = endpoint.rank in initiators
        self._limit = Limit(endpoint, settings.wait_timeout)
        self._lanes = Lanes(
            endpoint,
            context.replica,
            settings,
            context.counters,
            context.channel + 2,
            corrected=True,
            before=self.before_sending,
            limit=self._limit,
        )
        self._pace = Pace(endpoint)
        self._steps = 0
        self._steps_exchanged = 0
        self._paused = False
        self._leaving = False
        self._active = 0
        self._initiating = False
        self._token = np.empty(_TOKEN.size, np.uint8)
        """The answer to the one exchange that this worker has initiated."""
        self._gone: set[int] = set()
        self._unaware: set[int] = set()
        """Initiators that may not know yet that this worker leaves."""
        self._awaited: int | None = None
        """The one of them that the departure waits for."""
        self._requests: deque[int] = deque()
        self._changed = Signal("an exchange or a departure")

    def start(self) -> None:
        spawn = self.context.endpoint.spawn
        self._tasks = [spawn(self._listen(), "requests of the neighbours")]
        if self._initiates and self._neighbours:
            self._tasks.append(spawn(self._initiate(), "pairwise averaging"))

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        yield from ()
        self.context.replica.fold()
        result = update()
        self.context.replica.space.updated()
        self.context.post(self._stepped)
        return result

    def before_sending(self, chunk: Chunk) -> None:
        """Engine: called before a chunk is read for an exchange."""

    def average_pair(self, chunk: Chunk, mine: Array, theirs: Array) -> bool:
        """Engine: adds to the correction what an exchange gives, and says so; False, and nothing is added, if not all values are
        finite. `theirs` may be used as scratch."""
        return chunk.average(0.5, theirs, mine)

    async def pause(self) -> None:
        self._paused = True
        await self._changed.until(lambda: self._active == 0)
        await self.context.exact_average(f"adpsgd.{self.context.channel}.pause.{self.phase}", [])
        await self._changed.until(lambda: self._active == 0 and not self._requests)

    async def rest(self) -> None:
        """Initiates nothing any more. Who is met by others while it rests folds in what they bring when it goes on."""
        self._paused = True
        await self._changed.until(lambda: not self._initiating)

    async def resume(self, phase: int | None = None) -> None:
        self.phase = self.phase + 1 if phase is None else phase
        self._paused = False
        self._changed.set()

    async def depart(self) -> None:
        """Says that it leaves. Who answers goes on doing so until every initiator knows, or leaves as well."""
        self._leaving = True
        self._changed.set()
        if self._initiates:
            await self._changed.until(lambda: self._active == 0)
        token = _TOKEN.pack(GONE, self._steps, 0.0)
        told = [peer for peer in self._neighbours if peer not in self._gone]
        for peer in told:
            self.context.endpoint.send(peer, self.context.channel, token)
        if not self._initiates:
            self._unaware = set(told)
            for peer in told:
                await self._until_aware(peer)
            await self._changed.until(lambda: self._active == 0 and not self._requests)
        for task in self._tasks:
            task.cancel()
        self._limit.close()

    async def _until_aware(self, peer: int) -> None:
        if peer in self._unaware:
            self._awaited = peer
            watch = self._watch(peer)
            await self._changed.until(lambda: peer not in self._unaware)
            watch.cancel()

    def _watch(self, peer: int) -> Future[None]:
        """A receive that nothing answers: it ends when the peer has died."""

        def ended(done: Future[None]) -> None:
            if isinstance(done.error(), PeerFailedError):
                self._lose(peer)

        watch = self.context.endpoint.recv(peer, self.context.channel + 1, np.empty(_TOKEN.size, np.uint8))
        watch.add_callback(ended)
        return watch

    def _lose(self, peer: int) -> None:
        """A neighbour has died: it is as one that has left, and says nothing more."""
        if peer not in self._gone:
            log.warning("rank %d goes on without rank %d, which has died", self.context.endpoint.rank, peer)
        self._gone.add(peer)
        self._unaware.discard(peer)
        self._changed.set()

    def _stepped(self) -> None:
        self._steps += 1
        self._pace.stepped()
        self._changed.set()

    def _due(self) -> bool:
        return self._steps - self._steps_exchanged >= self.context.settings.mixing_period

    async def _initiate(self) -> None:
        while not self._leaving:
            await self._until_due()
            peers = self._neighbours
            if self._gone:
                peers = tuple(peer for peer in peers if peer not in self._gone)
            if self._leaving or not peers:
                return
            self._steps_exchanged = self._steps
            self._active += 1
            self._initiating = True
            await self._swap(peers[int(self.context.endpoint.rng.random() * len(peers))], asks=True)
            self._initiating = False
            self._changed.set()

    async def _until_due(self) -> None:
        """Waits for this worker's own step, or for as long as its partners take for theirs; and for the end of a pause."""
        timer = self._pace.timer(self.context.settings.mixing_period)
        timer.add_callback(lambda _: self._changed.set())
        while not self._leaving and (self._paused or not (self._due() or timer.done())):
            await self._changed.wait()
        timer.cancel()

    async def _swap(self, peer: int, *, asks: bool) -> None:
        """One exchange, counted as active already, as its initiator or as who answers. Less than one if the peer dies."""
        endpoint, channel = self.context.endpoint, self.context.channel
        before = self._steps
        token = _TOKEN.pack(REQUEST, before, self._pace.seconds)
        try:
            # That a token is under way is not awaited: what the peer sends next says that it has come.
            if asks:
                endpoint.send(peer, channel, token)
                await self._limit.watch(endpoint.recv(peer, channel + 1, self._token), ("the answer of rank", peer))
                self._pace.partner(peer, _TOKEN.unpack(self._token.data)[2])
            else:
                endpoint.send(peer, channel + 1, token)
            await self._lanes.exchange((peer,), (peer,), self._mix)
            self._count(peer, self._steps - before)
        except PeerFailedError:
            self._lose(peer)
        self._active -= 1

    def _mix(self, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        for peer, theirs in arrived.items():
            if not self.average_pair(chunk, mine, theirs):
                self.context.counters.refuse(peer)

    def _count(self, peer: int, staleness: int) -> None:
        counters, nbytes = self.context.counters, self._lanes.nbytes
        counters.exchanges += 1
        counters.last_peer = peer
        counters.bytes_sent += nbytes
        counters.bytes_received += nbytes
        counters.staleness[peer] = staleness

    async def _listen(self) -> None:
        while True:
            try:
                source, data = await self.context.endpoint.recv_any(self.context.channel)
            except PeerFailedError as error:  # in the midst of a token
                self._lose(error.peer)
                continue
            kind, _, seconds = _TOKEN.unpack(data)
            if kind == REQUEST:
                self._pace.partner(source, seconds)
                self._requests.append(source)
                self._answer_next()
            else:
                self._part(source, kind)

    def _part(self, source: int, kind: int) -> None:
        """A neighbour leaves, or knows that this worker does. No answer is awaited: both may leave at once."""
        if kind == GONE:
            self._gone.add(source)
        if kind == GONE and self._initiates:  # an initiator that leaves is asked by nobody, and waits for no answer
            token = _TOKEN.pack(FAREWELL, self._steps, 0.0)
            self.context.endpoint.send(source, self.context.channel, token)
        self._unaware.discard(source)
        if source == self._awaited:
            self._changed.set()

    def _answer_next(self) -> None:
        while self._requests and self._active < ANSWERS_AT_ONCE:
            self._active += 1
            peer = self._requests.popleft()
            self.context.endpoint.spawn(self._answer(peer), ("answer to rank", peer))

    async def _answer(self, peer: int) -> None:
        await self._swap(peer, asks=False)
        self._answer_next()
        self._changed.set()
