"""How a rank leaves the pools without losing a unit or keeping anybody waiting.

It waits for the answers to its own requests, gives everything that it has to one live rank (with its nominal share of
the pools that nobody has opened yet), tells all live ranks, goes on answering until each has said that it knows, and
only then stops listening. Two ranks that depart at once take each other's announcement for the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.sharing.estates import Estates, left_shares
from hvd_gossip.sharing.ledger import Numbers, pack, unpack
from hvd_gossip.sharing.messages import Acknowledged, Departed, Handover, PoolKey, PoolSpec, Probe, Receipt
from hvd_gossip.sharing.requests import Requests
from hvd_gossip.sharing.search import PROBE_EVERY, Search
from hvd_gossip.sharing.wire import Wire
from hvd_gossip.tasks import Future, Signal, first_of
from hvd_gossip.transport.endpoint import Endpoint


class Host(Protocol):
    """What a departure needs of the process's service."""

    endpoint: Endpoint
    wire: Wire
    requests: Requests[Search]
    searches: dict[PoolKey, Search]
    over: dict[PoolKey, PoolSpec]

    def settle(self, search: Search) -> None: ...

    def search_for(self, key: PoolKey, spec: PoolSpec) -> Search: ...


class Departures:
    """Who has left, what they left behind, and this rank's own departure. Owner: the engine's thread.

    Attributes:
        absent: ranks that departed or failed.
        floor: int32 of shape (size,): the least `required` of every ledger; see `ledger.Ledger`.
        estates: whose nominal shares are this rank's.
        leaving: this rank takes nothing more.
        handing_over: it has given away what it had, and does not know yet whether that was accepted.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._rank = host.endpoint.rank
        self.absent: set[int] = set()
        self.floor: Numbers = np.zeros(host.endpoint.size, np.int32)
        self.estates = Estates(self._rank, host.endpoint.size)
        self.leaving = False
        self.handing_over = False
        self._heir = -1
        self._receipt: Future[Receipt | None] = Future()
        self._unaware: set[int] | None = None
        self._changed = Signal(("rank", self._rank, "departing from the shared pools"))

    def live(self) -> list[int]:
        """The other ranks that take part."""
        return [rank for rank in range(self._host.endpoint.size) if rank not in self.absent and rank != self._rank]

    def look(self) -> None:
        """Something has changed that the departure may be waiting for."""
        self._changed.set()

    async def depart(self, timeout: float) -> None:
        """See `WorkSharing.depart`."""
        self.leaving = True
        for search in self._host.searches.values():
            search.fail(HorovodInternalError(f"rank {self._rank} departs: pool {search.pool.key} gives nothing more"))
        endpoint = self._host.endpoint
        task = endpoint.spawn(self._leave(), "departing from the shared pools")
        deadline = endpoint.now() + timeout
        while not task.done():
            timer = endpoint.sleep(max(0.0, min(PROBE_EVERY, deadline - endpoint.now())))
            await first_of(task, timer)
            timer.cancel()
            if not task.done() and endpoint.now() >= deadline:
                awaited = self._awaited()
                task.cancel()
                self._host.wire.close()
                raise WaitTimeoutError(
                    f"rank {self._rank}: departing from the shared pools took more than {timeout} s; "
                    f"no answer from ranks {sorted(awaited)}"
                )
            for rank in self._awaited() if timer.error() is None else ():
                self._host.wire.send(rank, Probe())
        task.result()

    def note_grant(self, rank: int, number: int) -> None:
        self.floor[rank] = max(self.floor[rank], number + 1)

    def adopt(self, source: int, handover: Handover) -> None:
        """A departing rank wants to leave this rank what it has."""
        host = self._host
        if self.leaving:
            host.wire.send(source, Receipt(handover.number, False))
            return
        for key, search in host.searches.items():
            search.pool.add(left_shares(handover.estates, host.endpoint.size, key, search.pool.spec))
        self.estates.inherit(handover.estates)
        for key, spec, parts in handover.pools:
            host.search_for(key, spec).pool.add(parts)
        for search in host.searches.values():
            search.deliver()
        host.wire.send(source, Receipt(handover.number, True, noted_as=host.requests.new_settled()))

    def hear_receipt(self, source: int, receipt: Receipt) -> None:
        if source == self._heir:
            self._receipt.set_result(receipt)

    def hear_departed(self, source: int, departed: Departed) -> None:
        """Another rank has left. A rank that has announced its own departure has nothing to add."""
        self.floor = np.maximum(self.floor, unpack(departed.floor))
        if self._unaware is None:
            self._host.wire.send(source, Acknowledged())
        self._forget(source)

    def hear_acknowledged(self, source: int) -> None:
        if self._unaware is not None:
            self._unaware.discard(source)
        self.look()

    def fail(self, rank: int) -> None:
        """A rank has died: it is not asked any more, and what it had is lost."""
        if rank in self.absent:
            return
        self._host.requests.drop(rank)
        self._forget(rank)
        if rank == self._heir:
            self._receipt.set_result(None)

    def _forget(self, rank: int) -> None:
        self.absent.add(rank)
        for search in tuple(self._host.searches.values()):
            search.ledger.raise_floor(self.floor)
            search.forget(rank)
            self._host.settle(search)
        self.hear_acknowledged(rank)

    async def _leave(self) -> None:
        host = self._host
        await self._changed.until(lambda: not len(host.requests))
        await self._hand_over()
        self._unaware = set(self.live())
        for rank in self._unaware:
            host.wire.send(rank, Departed(pack(self.floor)))
        await self._changed.until(lambda: not self._unaware)
        await host.wire.flush()
        host.wire.close()

    async def _hand_over(self) -> None:
        """Offers everything to one rank after the other until one takes it; if all are leaving, nobody needs it."""
        refused: set[int] = set()
        while heirs := [rank for rank in self.live() if rank not in refused]:
            self._heir = heirs[int(self._host.endpoint.rng.integers(len(heirs)))]
            if await self._offer():
                return
            refused.add(self._heir)

    async def _offer(self) -> bool:
        """Whether the heir took it. What was on the way to one that died is lost: another may have got it from there."""
        host = self._host
        self.handing_over = True
        self._receipt = Future(("a receipt from rank", self._heir))
        searches = tuple(host.searches.values())
        emptied = [(search, search.pool.empty()) for search in searches]
        pools = tuple((search.pool.key, search.pool.spec, parts) for search, parts in emptied if parts)
        known = {*host.searches, *host.over}
        number = host.requests.new_settled()
        host.wire.send(self._heir, Handover(number, pools, self.estates.bequeath(known)))
        receipt = await self._receipt
        self.handing_over = False
        if receipt is not None and not receipt.accepted:
            for search, parts in emptied:
                search.pool.add(parts)
            return False
        self.estates.release()
        if receipt is not None:
            self.note_grant(self._heir, receipt.noted_as)
        for search in searches:
            search.ledger.raise_floor(self.floor)
            host.settle(search)
        return True

    def _awaited(self) -> Collection[int]:
        """The ranks that this one's departure waits for."""
        if self._unaware is not None:
            return tuple(self._unaware)
        if self.handing_over:
            return (self._heir,)
        return self._host.requests.peers()
