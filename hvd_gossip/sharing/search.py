"""The engine's side of one pool: whom to ask for more, for how long, and when to stop."""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import numpy as np

from hvd_gossip.errors import WaitTimeoutError
from hvd_gossip.sharing.intervals import Interval
from hvd_gossip.sharing.ledger import Ledger
from hvd_gossip.sharing.messages import Reply, Request
from hvd_gossip.sharing.pool import SharedPool
from hvd_gossip.tasks import Future, Signal, Task, first_of
from hvd_gossip.transport.endpoint import Endpoint

FIRST_RETRY, LONGEST_RETRY = 1e-3, 0.05
"""Seconds before a rank is asked again that had nothing, though it has been given something: the grant is under way."""
AT_ONCE = 4
"""So many requests may be under way that are not expected to bring anything, at the end of an epoch."""
PROBE_EVERY = 0.5
"""Seconds between looks at whether a silent rank still lives."""
_NEVER_HEARD = -1


class Asker(Protocol):
    """What a search needs of the process's service."""

    endpoint: Endpoint
    wait_timeout: float

    def lead_time(self) -> float: ...

    def ask(self, search: Search, victim: int) -> None: ...

    def settle(self, search: Search) -> None: ...

    def probe(self, rank: int) -> None: ...


class Search:
    """Finds units for one pool. Owner: the engine's thread.

    Looking ahead (`waiters` is empty) it asks a few ranks that seem richer than its own, and gives up; it looks again just
    before the training thread is done with its last units. When the thread waits, it goes on until there is a unit or it is
    certain that there is none.

    Attributes:
        waiters: takers in the order in which they came, with the number of units each wants at most.
        asked: the ranks that have not answered yet, and since when.
        failure: why nothing more can be had from this pool, if that is so; raised by every take.
    """

    def __init__(self, asker: Asker, pool: SharedPool, ledger: Ledger) -> None:
        self.pool = pool
        self.ledger = ledger
        self.waiters: deque[tuple[int, Future[Interval | None]]] = deque()
        self.asked: dict[int, float] = {}
        self.failure: Exception | None = None
        self.task: Task[None] | None = None
        self._asker = asker
        self._endpoint = asker.endpoint
        self._news = Signal(("an answer about pool", pool.key))
        self._believed = np.full(self._endpoint.size, _NEVER_HEARD)
        self._retry_at: dict[int, float] = {}
        self._retry_after = FIRST_RETRY
        self._probed_at = 0.0
        self._gained = False
        self._look_ahead = math.ceil(math.log2(self._endpoint.size + 1)) + 4

    def begin(self) -> None:
        """Looks for more, unless that is being done."""
        if self.task is None or self.task.done():
            self.task = self._endpoint.spawn(self._run(), ("sharing pool", self.pool.key))
        else:
            self._news.set()

    def wait(self, count: int) -> Future[Interval | None]:
        """The next up to `count` units to come here, or None at the end of the epoch."""
        waiter: Future[Interval | None] = Future(("units of pool", self.pool.key))
        self.waiters.append((count, waiter))
        self.begin()
        return waiter

    def deliver(self) -> None:
        """Serves the waiting takers at once, before anybody else can ask for what has just come."""
        while self.waiters and (self.pool.remaining or self.pool.exhausted):
            count, waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(self.pool.take(count))
        self._news.set()

    def fail(self, error: Exception) -> None:
        """Makes waiting and later takes raise."""
        self.failure = error
        while self.waiters:
            self.waiters.popleft()[1].set_error(error)
        self._news.set()

    def request(self, number: int) -> Request:
        """A request for more, as things stand."""
        return self.pool.request(number, bool(self.waiters), self.ledger.table())

    def grant(self, source: int, request: Request) -> tuple[Interval, ...]:
        """What the asker gets, which from now on is its own."""
        granted = self.pool.grant(request)
        if granted:
            self.ledger.require(source, request.number)
        return granted

    def reply(self, number: int, granted: tuple[Interval, ...]) -> Reply:
        """The answer to a request."""
        return Reply(number, granted, self.pool.remaining, self.ledger.table(), self.pool.exhausted)

    def hear_request(self, source: int, request: Request) -> None:
        self._believed[source] = request.remaining
        self.ledger.merge(request.table)

    def hear_reply(self, source: int, reply: Reply) -> None:
        """Takes over what the answer tells; the grant itself has been added to the pool."""
        self.asked.pop(source, None)
        self.ledger.merge(reply.table)
        self._believed[source] = reply.remaining
        if reply.granted:
            self._gained, self._retry_after = True, FIRST_RETRY
        elif not reply.remaining:
            self._retry_at[source] = self._endpoint.now() + self._retry_after
        self.deliver()

    def forget(self, rank: int) -> None:
        """A rank departed or failed."""
        self.asked.pop(rank, None)
        self.ledger.exclude(rank)
        self._news.set()

    async def _run(self) -> None:
        fruitless, started = 0, self._endpoint.now()
        self._gained = False
        while self._goes_on(fruitless):
            if (early := self._too_early()) > 0:
                await self._news_within(early)
                continue
            victim = self._choose()
            if victim is not None and self._may_ask(victim):
                self._asker.ask(self, victim)
                fruitless += 1
            elif victim is None and not self.asked and not self.waiters:
                break
            else:
                await self._hear()
            if self._gained:
                fruitless, started, self._gained = 0, self._endpoint.now(), False
            if self.waiters and self._endpoint.now() - started > self._asker.wait_timeout:
                self.fail(self._timed_out())
        self.pool.look_again(fruitless=self.pool.is_low())

    def _goes_on(self, fruitless: int) -> bool:
        self._asker.settle(self)
        if self.pool.exhausted or self.failure is not None:
            return False
        return bool(self.waiters) or (self.pool.is_low() and fruitless < self._look_ahead)

    def _too_early(self) -> float:
        """Seconds until it is time to look for the next units: just before the training thread is done with its last ones.

        Whoever has units left gives them to the worker that will be free first, and earlier nobody knows who that is.
        """
        if self.waiters or self.pool.has_next():
            return 0.0
        return self.pool.busy_for() - self._asker.lead_time()

    def _choose(self) -> int | None:
        """The rank that is believed to have most; those never heard of come before those that have no more than usual."""
        now = self._endpoint.now()
        ranks = self.ledger.suspects([*self.asked, *(rank for rank, time in self._retry_at.items() if time > now)])
        if not ranks.size:
            return None
        worth_it = self.pool.remaining + 2 * self.pool.want
        wealth = np.where(self._believed[ranks] == _NEVER_HEARD, worth_it, self._believed[ranks])
        if self.pool.has_next():
            ranks, wealth = ranks[wealth >= worth_it], wealth[wealth >= worth_it]
        if not ranks.size:
            return None
        richest = ranks[wealth == wealth.max()]
        return int(richest[self._endpoint.rng.integers(richest.size)])

    def _may_ask(self, victim: int) -> bool:
        """One after the other, but several at once of whom nothing is expected; those who are silent do not count."""
        since = self._endpoint.now() - self._asker.lead_time()
        expected = sum(time > since for time in self.asked.values())
        return expected < (1 if self.pool.remaining or self._believed[victim] > 0 else AT_ONCE)

    async def _hear(self) -> None:
        """Waits for any news; not for longer than an answer usually takes, or until somebody may be asked again."""
        now = self._endpoint.now()
        lead_time = self._asker.lead_time()
        due = [since + lead_time for since in self.asked.values()]
        if not due:
            self._retry_after = min(2 * self._retry_after, LONGEST_RETRY)
        due += self._retry_at.values()
        if not await self._news_within(min((time - now for time in due if time > now), default=LONGEST_RETRY)):
            self._probe_the_silent()

    async def _news_within(self, seconds: float) -> bool:
        """Waits for any news, for so long but not beyond the bounds of a retry; False if there was none."""
        timer = self._endpoint.sleep(min(max(seconds, FIRST_RETRY), LONGEST_RETRY))
        await first_of(self._news.wait(), timer)
        silent = timer.done()
        timer.cancel()
        return not silent

    def _probe_the_silent(self) -> None:
        now = self._endpoint.now()
        for rank, since in tuple(self.asked.items()):
            if now - max(since, self._probed_at) > PROBE_EVERY:
                self._asker.probe(rank)
                self._probed_at = now

    def _timed_out(self) -> WaitTimeoutError:
        ranks = sorted(self.asked) or [int(rank) for rank in self.ledger.suspects()]
        return WaitTimeoutError(
            f"rank {self._endpoint.rank}: no units of the shared pool {self.pool.key} came within "
            f"{self._asker.wait_timeout} s; waiting for ranks {ranks}. Does every rank's process still run?"
        )
