"""Work sharing: an epoch's units handed out as workers ask, each once, with no coordinator.

Every rank starts a pool with an equal share. Its training thread takes from the head of it; when that runs low, the
engine asks other ranks in the background and gets a part of what they have, so that both would end at the same moment
(work stealing: Blumofe and Leiserson, "Scheduling multithreaded computations by work stealing", JACM 1999; here with
intervals instead of tasks, and between processes). A pool exists on every rank that was asked for some of it, whether
its own training thread has come there or not: the share of a worker that is epochs behind is not waited for.
An epoch ends for a worker when it is certain that nobody has anything left (`ledger`).

Over 16 ranks and 50,000 units this costs each rank a few dozen messages an epoch, of 100 bytes and 8 a rank.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.sharing.departure import Departures
from hvd_gossip.sharing.intervals import Interval
from hvd_gossip.sharing.ledger import Ledger
from hvd_gossip.sharing.messages import (
    Acknowledged,
    Departed,
    Disagreement,
    Handover,
    Message,
    PoolKey,
    PoolSpec,
    Probe,
    Receipt,
    Reply,
    Request,
)
from hvd_gossip.sharing.pool import SharedPool, SharingStats
from hvd_gossip.sharing.requests import Requests
from hvd_gossip.sharing.search import Search
from hvd_gossip.sharing.wire import Wire
from hvd_gossip.transport.endpoint import Endpoint


class WorkSharing:
    """One process's service. Owner: the engine's thread; `new_key`, `stats` and a pool's `take` may be called from any.

    Args:
        endpoint: access to the other ranks; its `now` is also called from the training thread.
        post: runs a function soon on the engine's thread (at once, in a simulation).
        wait_timeout: seconds that one take may wait.
    """

    def __init__(
        self, endpoint: Endpoint, post: Callable[[Callable[[], None]], None], *, wait_timeout: float = 1800.0
    ) -> None:
        self.endpoint = endpoint
        self.wait_timeout = wait_timeout
        self.requests: Requests[Search] = Requests()
        self.searches: dict[PoolKey, Search] = {}
        self.over: dict[PoolKey, PoolSpec] = {}
        self.wire = Wire(endpoint, self._hear, self.mark_failed)
        self._departures = Departures(self)
        self._post = post
        self._lock = threading.Lock()
        self._stats = SharingStats()
        self._begun: Counter[tuple[str, int]] = Counter()

    @property
    def size(self) -> int:
        """Number of ranks that the nominal shares are for."""
        return self.endpoint.size

    def start(self) -> None:
        """Begins to answer the other ranks."""
        self.wire.open()

    def stats(self) -> SharingStats:
        """A copy of the totals so far."""
        with self._lock:
            return replace(self._stats)

    def new_key(self, name: str, epoch: int) -> PoolKey:
        """The key of the next time that this rank goes through an epoch. From any thread.

        Ranks that go through their epochs alike get the same keys.
        """
        with self._lock:
            self._begun[name, epoch] += 1
            return PoolKey(name, epoch, self._begun[name, epoch] - 1)

    async def open(self, key: PoolKey, spec: PoolSpec) -> SharedPool:
        """This rank's part of a pool.

        Raises:
            HorovodInternalError: this rank has departed, or another rank uses the same key for something else.
        """
        if self._departures.leaving:
            raise HorovodInternalError(f"rank {self.endpoint.rank} has departed: pool {key} cannot be opened")
        pool = self.search_for(key, spec).pool
        if pool.spec != spec:
            problem = self._mismatch(pool, spec, "its script")
            for rank in self._departures.live():
                self.wire.send(rank, Disagreement(key, problem))
            raise HorovodInternalError(problem)
        return pool

    async def take(self, pool: SharedPool, count: int = 1) -> Interval | None:
        """Up to `count` units in one piece, at least one; None when nobody has any left.

        Raises:
            WaitTimeoutError: no answer within `wait_timeout` seconds.
            HorovodInternalError: the ranks disagree about the pool, or this rank has departed.
        """
        search = self.searches.get(pool.key)
        if search is not None and search.failure is not None:
            raise search.failure
        interval = pool.take(count)
        if interval is not None or search is None:
            return interval
        started = self.endpoint.now()
        interval = await search.wait(count)
        with self._lock:
            self._stats.waits += 1
            self._stats.wait_seconds += self.endpoint.now() - started
        return interval

    async def depart(self, timeout: float = 30.0) -> None:
        """Leaves: another live rank gets what is here, all are told, and from then on nobody asks this rank.

        Units that the training thread has taken are not given back.

        Args:
            timeout: seconds for all of it.

        Raises:
            WaitTimeoutError: some ranks did not answer in time; the message names them.
        """
        await self._departures.depart(timeout)

    def mark_failed(self, rank: int) -> None:
        """A rank has died. What it had is lost, and so is its nominal share of later epochs."""
        self._departures.fail(rank)

    def lead_time(self) -> float:
        """Seconds within which an answer of another rank may be counted on, from recent experience."""
        return self.requests.lead_time()

    def ask(self, search: Search, victim: int) -> None:
        """Sends a request."""
        now = self.endpoint.now()
        number = self.requests.new(victim, search, now)
        search.asked[victim] = now
        with self._lock:
            self._stats.asked += 1
        self.wire.send(victim, search.request(number))

    def probe(self, rank: int) -> None:
        """Finds out whether a silent rank is dead."""
        self.wire.send(rank, Probe())

    def settle(self, search: Search) -> None:
        """Says so if this rank has nothing, and ends the pool if nobody has."""
        pool = search.pool
        if pool.remaining or pool.exhausted or self._departures.handing_over:
            return
        search.ledger.assert_empty(self.requests.settled())
        if search.ledger.exhausted():
            self._end(search)

    def search_for(self, key: PoolKey, spec: PoolSpec) -> Search:
        """The search of a pool, which begins to exist here if it did not."""
        search = self.searches.get(key)
        if search is None and key in self.over:
            search = self._new_search(key, self.over[key], ())
            search.pool.close()
        elif search is None:
            search = self._new_search(key, spec, self._departures.estates.shares(key, spec))
            self.searches[key] = search
        return search

    def _new_search(self, key: PoolKey, spec: PoolSpec, parts: Iterable[Interval]) -> Search:
        pool = SharedPool(
            key,
            spec,
            parts,
            lock=self._lock,
            stats=self._stats,
            now=self.endpoint.now,
            lead_time=self.requests.lead_time,
            on_low=self._on_low,
        )
        ledger = Ledger(self.endpoint.rank, self._departures.floor, self._departures.absent)
        return Search(self, pool, ledger)

    def _on_low(self, pool: SharedPool) -> None:
        self._post(lambda: self._look_ahead(pool))

    def _look_ahead(self, pool: SharedPool) -> None:
        search = self.searches.get(pool.key)
        if search is not None:
            search.begin()

    def _end(self, search: Search) -> None:
        search.pool.close()
        self.over[search.pool.key] = search.pool.spec
        del self.searches[search.pool.key]
        search.deliver()

    def _hear(self, source: int, message: Message) -> None:
        match message:
            case Request():
                self._hear_request(source, message)
            case Reply():
                self._hear_reply(source, message)
            case Handover():
                if not self.requests.is_repeated(source, message.number):
                    self._departures.adopt(source, message)
            case Receipt():
                self._departures.hear_receipt(source, message)
            case Departed():
                self._departures.hear_departed(source, message)
            case Acknowledged():
                self._departures.hear_acknowledged(source)
            case Disagreement():
                self._hear_disagreement(message)
            case Probe():
                pass

    def _hear_disagreement(self, message: Disagreement) -> None:
        search = self.searches.get(message.key)
        if search is not None:
            search.fail(HorovodInternalError(message.problem))

    def _hear_request(self, source: int, request: Request) -> None:
        if not self.requests.is_repeated(source, request.number):
            self.wire.send(source, self._answer(source, request))

    def _answer(self, source: int, request: Request) -> Reply:
        known = request.key in self.searches or request.key in self.over
        if self._departures.handing_over and not known:
            return Reply(request.number)
        search = self.search_for(request.key, request.spec)
        if search.pool.spec != request.spec:
            return Reply(request.number, problem=self._mismatch(search.pool, request.spec, f"rank {source}"))
        search.hear_request(source, request)
        granted = search.grant(source, request)
        if granted:
            self._departures.note_grant(source, request.number)
        self.settle(search)
        return search.reply(request.number, granted)

    def _hear_reply(self, source: int, reply: Reply) -> None:
        search = self.requests.settle(reply.number, self.endpoint.now())
        if search is None:
            return
        if reply.problem:
            search.fail(HorovodInternalError(reply.problem))
        search.pool.add(reply.granted)
        with self._lock:
            self._stats.stolen += sum(stop - start for start, stop in reply.granted)
        search.hear_reply(source, reply)
        if reply.exhausted and not search.pool.remaining and not search.pool.exhausted:
            self._end(search)
        self.settle(search)
        self._departures.look()

    def _mismatch(self, pool: SharedPool, spec: PoolSpec, who: str) -> str:
        return (
            f"the ranks disagree about the shared pool {pool.key}: on rank {self.endpoint.rank} it is {pool.spec}, "
            f"{who} makes it {spec}; every rank must construct its samplers alike and in the same order, or name them"
        )
