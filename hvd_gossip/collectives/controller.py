"""Every rank's collectives: its requests, the coordinator's role when it is this rank's, and its departure.

All ranks see the coordinator's entries in one order and change their `State` by nothing else, so that each can take the
coordinator's role over when it departs. What was not answered by then is submitted again to the next one; messages that
come before their time (from a new coordinator, or to one) are kept, those that come too late (to an old one) are dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from hvd_gossip.buffers.cuda import CudaSpace
from hvd_gossip.collectives import entries as stream
from hvd_gossip.collectives import wire
from hvd_gossip.collectives.cache import ResponseCache
from hvd_gossip.collectives.client import Client
from hvd_gossip.collectives.coordinator import Coordinator
from hvd_gossip.collectives.eager import EAGER_BYTES
from hvd_gossip.collectives.executor import TransferOptions
from hvd_gossip.collectives.mailbox import Mailbox
from hvd_gossip.collectives.messages import name_ranks
from hvd_gossip.collectives.request import PROCESS_SET, ReduceOp, Request, Result
from hvd_gossip.collectives.stall import StallCheck
from hvd_gossip.collectives.state import State, everybody
from hvd_gossip.collectives.tracing import Trace, Tracer
from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.tasks import Future, Signal, Task, all_of, first_of
from hvd_gossip.transport.endpoint import Array, Endpoint, Message

_log = logging.getLogger("hvd_gossip")


class Collectives:
    """Named asynchronous collective operations among all ranks. Owner: the engine's thread.

    Args:
        endpoint: access to the other ranks; channel CONTROL and the COLLECTIVE ones belong to this object.
        fusion_threshold: bytes up to which allreduces are executed as one transfer (HOROVOD_FUSION_THRESHOLD).
        cycle_time: milliseconds for which a large allreduce may be held back to fuse it with others while a transfer is
            under way (HOROVOD_CYCLE_TIME). Nothing waits for a cycle otherwise.
        cache_capacity: signatures that are negotiated by a number when they come again (HOROVOD_CACHE_CAPACITY); 0: none.
        stall_check_time: seconds after which a name that only some ranks have submitted is reported, again and again.
        stall_shutdown_time: seconds after which it fails with WaitTimeoutError on all ranks; 0 is never.
        stall_check_disable: neither report nor give up.
        on_stall: takes the report; the default logs a warning. Called on the coordinator only.
        trace: takes what a timeline shows.
        wait_timeout: seconds that one transfer may last before it fails.
        eager_bytes: arrays of at most this divided by the number of ranks travel with the request and the answer.
        chunk_bytes, space_of: see TransferOptions.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        fusion_threshold: int = 128 << 20,
        cycle_time: float = 1.0,
        cache_capacity: int = 1024,
        stall_check_time: float = 60.0,
        stall_shutdown_time: float = 0.0,
        stall_check_disable: bool = False,
        on_stall: Callable[[str], None] = _log.warning,
        trace: Trace | None = None,
        wait_timeout: float = 1800.0,
        eager_bytes: int = EAGER_BYTES,
        chunk_bytes: int = TransferOptions.chunk_bytes,
        space_of: Callable[[Sequence[Array]], CudaSpace] = TransferOptions.space_of,
    ) -> None:
        self._endpoint = endpoint
        self._rank = endpoint.rank
        self._fusion_threshold = fusion_threshold
        self._cycle_time = cycle_time / 1000.0
        check = StallCheck(stall_check_time, stall_shutdown_time, on_stall)
        self._stall = StallCheck(0.0, 0.0, on_stall) if stall_check_disable else check
        self._longest_sleep = min(time for time in (stall_check_time, stall_shutdown_time, wait_timeout) if time > 0)
        self._state = State(ResponseCache(cache_capacity), {0: everybody(endpoint.size)}, {})
        self._mailbox = Mailbox(endpoint, self._receive, self._lose)
        self._tracer = Tracer(trace, endpoint.now) if trace else None
        self._client = Client(
            endpoint,
            self._state,
            self._tracer,
            eager_bytes=eager_bytes,
            options=TransferOptions(wait_timeout, chunk_bytes, space_of),
            on_requests=self._flush_soon,
            on_departed=self._see_departed,
            on_failure=self._report,
            on_end=self._advance,
        )
        self._leader = 0
        self._coordinator: Coordinator | None = None
        self._audience: tuple[int, ...] = ()
        self._early: list[Message] = []
        self._departing = False
        self._unacknowledged: set[int] = set()
        self._acknowledged: set[int] = set()
        self._moved = Signal("collective operations")
        self._watcher: Task[None] | None = None
        self._holding = False

    def start(self) -> None:
        """Begins to take part. Every rank calls it; requests may be submitted from then on."""
        self._mailbox.start()
        self._watcher = self._endpoint.spawn(self._watch(), "stall check")
        self._take_over()

    def submit(self, request: Request) -> Future[Result]:
        """Starts an operation that every rank of its process set submits under the same name.

        The returned future fails with:
            ValueError: the name is in flight already, or the process set or the root rank does not exist.
            HorovodInternalError: the ranks submitted different things, a rank has departed, or the transfer failed; the
                next operation may be tried.
            WaitTimeoutError: some ranks did not submit it for `stall_shutdown_time`.
        """
        return self._client.submit(request)

    async def add_process_set(self, ranks: Sequence[int]) -> int:
        """Registers a process set and returns its number. All live ranks call it, in the same order, with the same ranks.

        Raises:
            ValueError: a process set of these ranks exists, or the ranks do not.
            HorovodInternalError: the ranks' calls differ, or some have joined.
        """
        request = Request(PROCESS_SET, "add_process_set", np.array(ranks, np.int64))
        return (await self.submit(request)).sizes[0]

    async def remove_process_set(self, process_set: int) -> bool:
        """Ends the registration of a process set. All live ranks call it, in the same order. Returns whether there was one.

        What is not answered of its operations fails; what is being transferred goes on.

        Raises:
            ValueError: it is the global one.
            HorovodInternalError: the ranks' calls differ, or some have joined.
        """
        request = Request(PROCESS_SET, "remove_process_set", np.array([process_set], np.int64))
        return bool((await self.submit(request)).sizes[0])

    def ranks_of(self, process_set: int) -> tuple[int, ...]:
        """The ranks of a process set, ascending, also those that have departed. From any thread.

        Raises:
            ValueError: there is none of this number.
        """
        if process_set not in self._state.process_sets:
            raise ValueError(f"there is no process set {process_set}")
        return self._state.process_sets[process_set]

    def describe_gone(self) -> str:
        """Who has departed: "rank 2 has shut down", or "" if nobody has. From any thread."""
        return self._state.describe_gone() if self._state.gone else ""

    async def exact_average(self, name: str, arrays: Sequence[Array], process_set: int = 0) -> int:
        """Replaces arrays, in place, by their mean over the live ranks of a process set; returns how many those are.

        All these ranks call it with the same name and arrays alike; all arrays are averaged over the same ranks.

        Raises:
            HorovodInternalError: see `submit`.
        """
        requests = [
            Request(
                f"{name}.{index}", "allreduce", array, ReduceOp.AVERAGE, output=array, live_only=True,
                group=f"{name}.group", group_size=len(arrays), process_set=process_set,
            )
            for index, array in enumerate(arrays)
        ]  # fmt: skip
        if not requests:
            requests = [Request(name, "barrier", live_only=True, process_set=process_set)]
        results: list[Result] = await all_of(self.submit(request) for request in requests)
        return len(results[0].ranks)

    async def depart(self, timeout: float = 30.0) -> None:
        """Leaves: what is not answered yet fails here, and on the others unless it is `live_only`.

        Returns when the transfers under way are done and every live peer knows.

        Args:
            timeout: seconds.

        Raises:
            WaitTimeoutError: the time is up; the message names who did not answer. This rank has left all the same.
        """
        if self._departing:
            return
        self._departing = True
        limit = self._endpoint.sleep(timeout)
        try:
            self._flush()
            self._announce()
            while not self._has_left():
                if limit.done():
                    raise WaitTimeoutError(
                        f"rank {self._rank} could not shut down within {timeout:g} s: {self._lack()}"
                    )
                await first_of(self._mailbox.sent.wait(), self._moved.wait(), limit)
        finally:
            limit.cancel()
            self._stop()

    # Requests and answers

    def _flush_soon(self) -> None:
        # In the scheduler's next step: what was submitted until then travels in one message.
        self._endpoint.spawn(self._flush_now(), "requests")

    async def _flush_now(self) -> None:
        self._flush()

    def _flush(self) -> None:
        submissions = self._client.take_submissions()
        if not submissions:
            return
        if self._coordinator is not None:
            self._coordinator.submit(self._rank, submissions)
            self._advance()
        else:
            self._mailbox.send(self._leader, wire.encode_requests(submissions))

    def _receive(self, message: Message) -> None:
        source, data = message
        kind = wire.message_type(data)
        if kind == wire.ANSWERS:
            if source == self._leader:
                self._follow(stream.decode_answers(data))
            else:
                self._early.append(message)
        elif kind == wire.ACKNOWLEDGE:
            # It may overtake the coordinator's answer to this rank.
            self._acknowledged.add(source)
            self._unacknowledged.discard(source)
            self._moved.set()
        elif self._coordinator is not None:
            self._coordinate(self._coordinator, kind, message)
        elif self._rank not in self._state.gone:
            self._early.append(message)

    def _follow(self, entries: Iterable[stream.Entry]) -> None:
        self._client.follow(entries)
        if self._leader in self._state.gone and self._rank not in self._state.gone:
            self._take_over()
        self._moved.set()

    # The coordinator's role

    def _take_over(self) -> None:
        """Looks for the coordinator, which may be this rank, and tells it again whatever is not answered."""
        self._leader = min(self._state.live())
        if self._leader == self._rank:
            self._audience = self._peers()
            self._coordinator = Coordinator(
                self._state, self._fusion_threshold, self._cycle_time, self._endpoint.now, self._tracer
            )
        self._client.start_again()
        for sequence, text in list(self._client.failures.items()):
            self._report(sequence, text)  # the last one may have departed without hearing of it
        if self._departing:
            self._flush()
            self._announce()
        early, self._early = self._early, []
        for message in early:
            self._receive(message)

    def _coordinate(self, coordinator: Coordinator, kind: int, message: Message) -> None:
        source, data = message
        if kind == wire.REQUESTS:
            coordinator.submit(source, wire.decode_requests(data))
        elif kind == wire.DEPART:
            coordinator.depart(source)
        else:
            coordinator.report(source, *wire.decode_report(data))
        self._advance()

    def _advance(self) -> None:
        """Coordinator: sends what is decided to all, and follows it too."""
        self._moved.set()
        coordinator = self._coordinator
        if coordinator is None:
            return
        entries = coordinator.take(self._client.executor.idle)
        if entries:
            self._publish(entries)
        if coordinator.due is not None and not self._holding:
            self._holding = True
            self._endpoint.spawn(self._release(coordinator), "fusion cycle")

    def _publish(self, entries: list[stream.Entry]) -> None:
        if self._tracer is not None:
            self._tracer.cycle()
        if self._audience:
            data = stream.encode_answers(entries)
            has_sets = len(self._state.process_sets) > 1
            for rank in self._audience:
                own = stream.encode_answers(self._state.for_rank(entries, rank)) if has_sets else data
                self._mailbox.send(rank, own)
        self._follow(entries)
        if self._state.gone:
            self._audience = self._peers()

    def _peers(self) -> tuple[int, ...]:
        return tuple(rank for rank in self._state.live() if rank != self._rank)

    async def _release(self, coordinator: Coordinator) -> None:
        """Sends what is held back, when its time is up."""
        while coordinator.due is not None and coordinator is self._coordinator:
            await self._endpoint.sleep(max(0.0, coordinator.due - self._endpoint.now()))
            self._advance()
        self._holding = False

    # What goes wrong

    def _report(self, sequence: int, text: str) -> None:
        """A transfer has failed here: the others need not wait for this rank."""
        if self._coordinator is not None:
            self._coordinator.report(self._rank, sequence, text)
            self._advance()
        elif not self._client.closed:
            self._mailbox.send(self._leader, wire.encode_report(sequence, text))

    def _lose(self, rank: int, error: BaseException) -> None:
        """A message to a rank could not be delivered."""
        if rank in self._state.gone:
            self._unacknowledged.discard(rank)
        elif self._coordinator is not None:
            _log.warning("rank %d: %s", self._rank, error)
            self._audience = tuple(peer for peer in self._audience if peer != rank)
            self._coordinator.depart(rank, died=True)
            self._advance()
        elif rank == self._leader:
            self._client.close(f"the coordinator, rank {rank}, cannot be reached: {error}")
        self._moved.set()

    async def _watch(self) -> None:
        """Looks after what lasts too long."""
        executor = self._client.executor
        while True:
            stall = None if self._coordinator is None else self._stall.next_due(self._coordinator)
            due = min((due for due in (executor.next_due(), stall) if due is not None), default=None)
            if due is None:
                await self._moved.wait()
                continue
            await self._endpoint.sleep(min(self._longest_sleep, max(0.0, due - self._endpoint.now())))
            now = self._endpoint.now()
            executor.expire(now)
            if self._coordinator is not None:
                self._stall.check(self._coordinator, now)
                self._advance()

    # Departing

    def _announce(self) -> None:
        if self._coordinator is not None:
            self._coordinator.depart(self._rank)
            self._advance()
        elif not self._client.closed:
            self._mailbox.send(self._leader, wire.encode_plain(wire.DEPART))

    def _see_departed(self, entry: stream.Departed) -> None:
        """A rank has departed, maybe this one."""
        if entry.rank == self._rank:
            self._unacknowledged = set(self._state.live()) - self._acknowledged
            self._coordinator = None
            self._client.close(f"rank {self._rank} has shut down")
        elif not entry.died:
            self._mailbox.send(entry.rank, wire.encode_plain(wire.ACKNOWLEDGE))
        self._unacknowledged.discard(entry.rank)

    def _has_left(self) -> bool:
        waits = self._unacknowledged or self._mailbox.outstanding or not self._client.executor.idle
        return bool(self._client.closed) and not waits

    def _lack(self) -> str:
        if not self._client.closed:
            return f"the coordinator, rank {self._leader}, did not answer"
        if self._unacknowledged:
            return f"no answer from {name_ranks(self._unacknowledged)}"
        return "transfers are not done" if not self._client.executor.idle else "messages could not be sent"

    def _stop(self) -> None:
        reason = f"rank {self._rank} has shut down"
        self._coordinator = None
        self._client.close(reason)
        self._client.executor.abort_all(HorovodInternalError(reason))
        self._mailbox.stop()
        if self._watcher is not None:
            self._watcher.cancel()
