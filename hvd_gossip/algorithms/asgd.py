"""ASGD: the asynchronous parameter server, AsySG-con.

Lian, Huang, Li, Liu: "Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization", NeurIPS 2015, Algorithm 1.
Staleness: Zhang, Gupta, Lian, Liu, "Staleness-aware Async-SGD for Distributed Deep Learning", IJCAI 2016, equations 3 to 6.

Servers keep the model x. A worker that has read x(t - tau) makes its update u at it (-lr g for plain SGD; what the wrapped
optimizer did), sends it, and reads the newest x:

    x(t+1) = x(t) + u(x(t - tau)).

With staleness_aware an update counts u / max(1, tau), tau being the number of versions that the model has gone through since the
worker read it. With softsync = c the model is kept until c updates have come, and takes their mean (the paper's n-softsync of
lambda workers has c = lambda / n); a worker that waits for the newest x does not wait for that. c is at most the number of
workers that have not departed.

Every rank trains; the first `servers` ranks keep a shard each besides (0: all ranks), and their engines serve it. Within a
shard reads are consistent, between shards they are not. An update made by a server's own worker at what its shard has is taken as
it is, so that one worker is the wrapped optimizer. In order "sequential", the paper's, a step ends when the newest x is there; in
"overlap" the next gradient is taken meanwhile at the worker's own x, and the step after it begins with the newest.

The model is the servers'; what other ranks begin with is given up when they read it. A server begins with its rank's parameters
at the first request. It serves until every worker has departed, also when its own rank has: that rank's shutdown waits. Exact
averages show the model as it is when all workers have come (softsync: with what was collected); parameters that are
overwritten in a pause (hvd.broadcast_parameters) are the model from then on. An update that is not finite is refused by worker
and server, by chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Algorithm, Context, Wait
from hvd_gossip.algorithms.lanes import LANES
from hvd_gossip.algorithms.limit import Limit
from hvd_gossip.algorithms.parameter_server import (
    DOWN,
    FETCH,
    GONE,
    REPLIES,
    REPLY,
    TOKEN,
    UP,
    UPDATE,
    ParameterServer,
    difference,
    lead_to,
)
from hvd_gossip.algorithms.settings import OUTER
from hvd_gossip.buffers.arrays import is_finite
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.errors import ConfigError, PeerFailedError
from hvd_gossip.tasks import Future, Signal, all_of

R = TypeVar("R")


class ASGD(Algorithm):
    """x <- x + u(stale x) at the servers. Memory: a correction and x before the update; a server also its shard."""

    name = "asgd"
    paper = (
        "Lian et al., Asynchronous Parallel Stochastic Gradient for Nonconvex Optimization, NeurIPS 2015 (AsySG-con)"
    )
    synchronous = False
    needs = "none"
    default_topology = "complete"
    orders: ClassVar[tuple[str, ...]] = ("sequential", "overlap")
    heeds = frozenset({"servers", "staleness_aware", "softsync", *OUTER})
    central = True
    overwritable = False
    waits_for = "its servers' answer"
    memory = "2 x; a server its shard"
    good_for = "the centralized asynchronous baseline; workers of different speed and one model"
    bad_for = "many workers: the servers' links carry everything, and updates are stale"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        ranks, rank = context.topology.ranks, context.endpoint.rank
        self._servers = _choose_servers(ranks, context.settings.servers)
        self._before = context.replica.companion()
        self._versions = dict.fromkeys(self._servers, 0)
        self._server: ParameterServer | None = None
        if rank in self._servers:
            self._server = ParameterServer(context, self._shard(rank), self._before.chunks)
        self._limit = Limit(context.endpoint, context.settings.wait_timeout)
        self._begun = 0
        self._finished = 0
        self._moved = Signal(("the newest parameters of server rank(s)", *self._servers))

    # `_begun` belongs to the training thread, `_finished` and `_versions` to the engine's, `_before` to the one that works.

    def start(self) -> None:
        if self._server is not None:
            self._server.start()

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        replica = self.context.replica
        if self._finished < self._begun:
            yield self._settled
        replica.fold()
        if self._server is not None:
            self._server.begin(replica.space.training)
        self._before.copy_from(replica.flats)
        result = update()
        replica.space.updated()
        self._begun += 1
        self.context.post(self._begin)
        if self.order == "sequential":
            yield self._settled
            replica.fold()
        return result

    async def pause(self) -> None:
        """All updates are at the servers, then all have what these have, as their correction."""
        name = f"asgd.{self.context.channel}.pause.{self.phase}"
        await self._settled()
        await self.context.exact_average(f"{name}.updated", [])
        if self._server is not None:
            await self._server.pause()
            self._versions[self.context.endpoint.rank] = self._server.version
        await self.context.exact_average(f"{name}.served", [])
        await self._all_servers(FETCH)

    async def rest(self) -> None:
        """A server goes on serving."""
        await self._settled()

    async def resume(self, phase: int | None = None) -> None:
        if self._server is not None:
            self._server.resume()
        self.phase = self.phase + 1 if phase is None else phase

    async def depart(self) -> None:
        await self._settled()
        self._limit.close()
        for server in self._servers:
            if server != self.context.endpoint.rank:
                self.context.endpoint.send(server, self.context.channel, TOKEN.pack(GONE, 0))
        if self._server is not None:
            self._server.resume()

    async def linger(self) -> None:
        """A server serves until every worker has departed."""
        if self._server is not None:
            await self._server.linger()

    def _shard(self, server: int) -> list[Chunk]:
        return self.context.replica.chunks[self._servers.index(server) :: len(self._servers)]

    def _begin(self) -> None:
        self.context.endpoint.spawn(self._exchange(), "an update for the servers")

    async def _settled(self) -> None:
        await self._moved.until(lambda: self._finished >= self._begun)

    async def _exchange(self) -> None:
        await self._all_servers(UPDATE)
        self._finished += 1
        self._moved.set()

    async def _all_servers(self, kind: int) -> None:
        """Sends each server its part of the update, and reads its shard; in a pause this rank's own is not asked."""
        rank = self.context.endpoint.rank
        coroutines = [self._ask(server, kind) for server in self._servers if server != rank and self._shard(server)]
        if self._server is not None and kind == UPDATE:
            coroutines.append(self._ask_own(self._server))
        await all_of([self.context.endpoint.spawn(each, "reading from the servers") for each in coroutines])

    async def _ask_own(self, server: ParameterServer) -> None:
        rank = self.context.endpoint.rank
        self._versions[rank] = await server.own(UPDATE, self._versions[rank])
        self.context.counters.exchanges += 1

    async def _ask(self, server: int, kind: int) -> None:
        endpoint, counters = self.context.endpoint, self.context.counters
        header = np.empty(REPLY.size, np.uint8)
        token = TOKEN.pack(kind, self._versions[server])
        transfers = [functools.partial(self._ask_for, server, header, token)]
        transfers += [functools.partial(self._lane, lane, server, kind) for lane in range(LANES)]
        moving = [endpoint.spawn(self._naming(server, each), ("server rank", server)) for each in transfers]
        reading = endpoint.spawn(_all(moving), ("reading from server rank", server))
        await self._limit.watch(reading, ("the newest parameters of server rank", server))
        self._versions[server], staleness = REPLY.unpack(header.tobytes())
        nbytes = sum(int(chunk.x.nbytes) for chunk in self._shard(server))
        counters.bytes_received += nbytes
        if kind == UPDATE:
            counters.bytes_sent += nbytes
            counters.exchanges += 1
            counters.last_peer = server
            if self._server is None:
                counters.staleness[server] = staleness

    async def _ask_for(self, server: int, header: np.ndarray, token: bytes) -> None:
        endpoint, channel = self.context.endpoint, self.context.channel
        await all_of([endpoint.recv(server, channel + REPLIES, header), endpoint.send(server, channel, token)])

    async def _naming(self, server: int, transfer: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await transfer()
        except PeerFailedError as error:
            raise PeerFailedError(
                server,
                f"rank {self.context.endpoint.rank}: server rank {server} is gone, and with it its shard of the "
                f"parameters: {error}",
            ) from error

    async def _lane(self, lane: int, server: int, kind: int) -> None:
        endpoint, space, channel = self.context.endpoint, self.context.replica.space, self.context.channel
        for chunk in self._shard(server)[lane::LANES]:
            size, dtype = chunk.x.size, chunk.x.dtype
            arriving, finite = space.wire(size, dtype), True
            moving = [endpoint.recv(server, channel + DOWN + lane, arriving)]
            if kind == UPDATE:
                leaving = space.wire(size, dtype)
                with space.engine(chunk):
                    update = difference(chunk, self._before.chunks[chunk.index])
                    finite = is_finite(update)
                    space.publish(update, leaving)
                await space.settled(endpoint)
                moving.append(endpoint.send(server, channel + UP + lane, leaving))
            await all_of(moving)
            with space.computing():
                self._read(chunk, server, space.fetch(arriving), finite)
            await space.settled(endpoint)

    def _read(self, chunk: Chunk, server: int, values: Any, finite: bool) -> None:
        """Takes what a server sent, unless it refused what it was sent, or this is not finite itself."""
        if not finite:
            self.context.counters.refuse(self.context.endpoint.rank)
        elif not is_finite(values):
            self.context.counters.refuse(server)
        else:
            lead_to(chunk, values)


async def _all(futures: Sequence[Future[None]]) -> None:
    await all_of(futures)


def _choose_servers(ranks: Sequence[int], count: int) -> list[int]:
    """The first `count` ranks, or all.

    Raises:
        ConfigError: there are not so many.
    """
    if count > len(ranks):
        raise ConfigError(f"servers={count}, but there are only {len(ranks)} ranks to keep the parameters; 0 means all")
    return list(ranks[: count or len(ranks)])
