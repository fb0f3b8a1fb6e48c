"""One rank's requests in flight, and what the coordinator's entries do to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from hvd_gossip.collectives import entries, wire
from hvd_gossip.collectives.cache import Key
from hvd_gossip.collectives.eager import payload_of, result_of
from hvd_gossip.collectives.executor import Executor, Operation, TransferOptions
from hvd_gossip.collectives.messages import DUPLICATE, name_ranks
from hvd_gossip.collectives.objections import POWER_OF_TWO, is_power_of_two
from hvd_gossip.collectives.request import BY_ROWS, PROCESS_SET, ReduceOp, Request, Result, Signature, dtype_of
from hvd_gossip.collectives.state import State
from hvd_gossip.collectives.tracing import Tracer
from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.tasks import Future
from hvd_gossip.transport.endpoint import Endpoint


class Pending:
    """A request in flight.

    Attributes:
        sent_id: the cached id that it was submitted under, or None.
        since: when it was submitted, seconds.
    """

    __slots__ = ("future", "request", "sent_id", "signature", "since")

    def __init__(self, request: Request, since: float) -> None:
        self.request = request
        self.signature = request.signature()
        self.future: Future[Result] = Future((request.kind, request.name))
        self.sent_id: int | None = None
        self.since = since

    def fail(self, reason: str) -> None:
        """Fails it with HorovodInternalError."""
        what = f"{self.signature.kind} {self.signature.name!r}"
        self.future.set_error(HorovodInternalError(f"{what} was not carried out: {reason}"))


class Client:
    """The requests of one rank.

    Args:
        state: changed by the entries, and by nothing else.
        on_requests: called when there are submissions to take.
        on_departed: called with every departure that is followed.
        on_failure: called as `on_failure(sequence, text)` when a transfer failed on this rank.
        on_end: called when a transfer has ended, however.

    Attributes:
        closed: why nothing can be submitted, or "".
        failures: of transfers on this rank, by the transfers' numbers: what the coordinator has not passed on yet.
        executor: runs the transfers.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        state: State,
        tracer: Tracer | None,
        *,
        eager_bytes: int,
        options: TransferOptions,
        on_requests: Callable[[], None],
        on_departed: Callable[[entries.Departed], None],
        on_failure: Callable[[int, str], None],
        on_end: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self._rank = endpoint.rank
        self._state = state
        self._tracer = tracer
        self._eager_bytes = eager_bytes
        self._on_requests = on_requests
        self._on_departed = on_departed
        self._on_end = on_end
        self._pending: dict[Key, Pending] = {}
        self._executing: set[Key] = set()
        self._outbox: list[Pending] = []
        self._on_failure = on_failure
        self.closed = ""
        self.failures: dict[int, str] = {}
        self.executor = Executor(endpoint, options, on_end=self._end, on_failure=self._note_failure)

    def submit(self, request: Request) -> Future[Result]:
        """Takes a request; see Collectives.submit."""
        pending = Pending(request, self._endpoint.now())
        error = self._refusal(pending.signature)
        if error is not None:
            pending.future.set_error(error)
        else:
            self._pending[pending.signature.key] = pending
            self._enqueue(pending)
        return pending.future

    def take_submissions(self) -> list[wire.Submission]:
        """What is to be sent to the coordinator now."""
        outbox, self._outbox = self._outbox, []
        return [self._submission(pending) for pending in outbox if not pending.future.done()]

    def start_again(self) -> None:
        """Everything that is not answered is to be submitted again: the coordinator has changed."""
        self._outbox = []
        for pending in self._pending.values():
            self._enqueue(pending)

    def follow(self, stream: Iterable[entries.Entry]) -> None:
        """Does what the coordinator's entries say, in their order."""
        for entry in stream:
            _FOLLOW[type(entry)](self, entry)

    def close(self, reason: str) -> None:
        """Fails what is not answered; nothing can be submitted any more. Transfers go on."""
        self.closed = self.closed or reason
        pending, self._pending, self._outbox = self._pending, {}, []
        for one in pending.values():
            one.fail(reason)

    def _refusal(self, signature: Signature) -> Exception | None:
        """Why a request cannot even be submitted, or None."""
        ranks = self._state.process_sets.get(signature.process_set)
        kind, text = signature.kind, ""
        error: type[Exception] = ValueError
        if self.closed:
            error, text = HorovodInternalError, f"cannot be submitted: {self.closed}"
        elif ranks is None:
            text = f"process set {signature.process_set} does not exist or has not been registered."
        elif self._rank not in ranks:
            text = f"Rank {self._rank} is not a member of the provided process set."
        elif kind == "broadcast" and signature.root_rank not in ranks:
            text = f"root rank {signature.root_rank} is not one of {name_ranks(ranks)}"
        elif signature.op == ReduceOp.ADASUM and not is_power_of_two(len(ranks)):
            error, text = NotImplementedError, f"{POWER_OF_TWO}: {len(ranks)} take part"
        elif signature.key in self._pending or signature.key in self._executing:
            return ValueError(DUPLICATE.format(kind=kind, name=signature.name))
        return error(f"{kind} {signature.name!r}: {text}") if text else None

    def _enqueue(self, pending: Pending) -> None:
        pending.sent_id = None
        self._outbox.append(pending)
        if len(self._outbox) == 1:
            self._on_requests()

    def _submission(self, pending: Pending) -> wire.Submission:
        request, signature = pending.request, pending.signature
        number = pending.sent_id = self._state.cache.find(signature)
        length = request.array.shape[0] if request.array is not None and signature.kind in BY_ROWS else 0
        payload = payload_of(request, self._rank, self._endpoint.size, self._eager_bytes)
        return wire.Submission(signature if number is None else number, length, payload, request.splits)

    def _define(self, entry: entries.Define) -> None:
        self._state.cache.define(entry.id, entry.signature)

    def _evict(self, entry: entries.Evict) -> None:
        for signature in self._state.cache.evict(entry.ids):
            pending = self._pending.get(signature.key)
            # The coordinator keeps the ids of names that it is negotiating, so it ignored, or will ignore, this request.
            if pending is not None and pending.sent_id in entry.ids:
                self._enqueue(pending)

    def _answer(self, entry: entries.Answer) -> None:
        signature = self._state.cache.touch(entry.id)
        if entry.absent and self._rank in entry.absent:  # what may be pending here under this name is the next of it
            return
        pending = self._pending.pop(signature.key, None)
        if pending is None:
            return
        since = 0.0
        if self._tracer is not None:
            self._trace_negotiation([pending])
            since = self._endpoint.now()
        ranks = self._participants(signature, entry.absent)
        result = result_of(pending.request, entry.payload, entry.sizes, ranks, self._rank)
        if self._tracer is not None:
            self._tracer.answered(signature, since)
        pending.future.set_result(result)

    def _execute(self, entry: entries.Execute) -> None:
        state = self._state
        state.next_sequence = entry.sequence + 1
        signatures = [state.cache.touch(number) for number in entry.ids]
        first = signatures[0]
        ranks = self._participants(first, entry.absent)
        if self._rank not in entry.absent:
            keys = [signature.key for signature in signatures]
            parts = [self._pending.pop(key) for key in keys if key in self._pending]
        else:  # what may be pending here under these names is the next of them
            keys = []
            parts = [Pending(_zeros(one), self._endpoint.now()) for one in signatures if self._rank in ranks]
        if not parts:
            return
        self._executing.update(keys)
        self._trace_negotiation(parts)
        count = len(ranks if first.live_only else state.live(first.process_set))
        self.executor.submit(Operation(entry.sequence, parts, ranks, entry.sizes, count, self._endpoint.now()))

    def _participants(self, signature: Signature, absent: tuple[int, ...]) -> tuple[int, ...]:
        """Who takes part in an operation that ranks are absent from since they have joined; their zeros need not be sent.

        Adasum's pairs need them: there, they do take part.
        """
        live = self._state.live(signature.process_set)
        if not absent or (signature.op == ReduceOp.ADASUM and not signature.live_only):
            return live
        return tuple(rank for rank in live if rank not in absent)

    def _fail(self, entry: entries.Failure) -> None:
        if self._rank not in entry.ranks:
            return
        pending = self._pending.pop((entry.process_set, entry.name), None)
        if pending is not None:
            pending.future.set_error((WaitTimeoutError if entry.timed_out else HorovodInternalError)(entry.text))

    def _change_set(self, entry: entries.ChangeSet) -> None:
        existed = entry.process_set in self._state.process_sets
        self._state.change(entry)
        pending = self._pending.pop((0, PROCESS_SET), None)
        if pending is None:
            return
        if entry.text:
            pending.future.set_error(ValueError(entry.text))
        elif entry.ranks:
            pending.future.set_result(Result(None, (entry.process_set,), self._state.live()))
        else:
            pending.future.set_result(Result(None, (int(existed),), self._state.live()))

    def _depart(self, entry: entries.Departed) -> None:
        self._state.gone[entry.rank] = entry.died
        self._on_departed(entry)

    def _note_failure(self, operation: Operation, error: BaseException) -> None:
        self.failures[operation.sequence] = str(error)
        self._on_failure(operation.sequence, str(error))

    def _abort(self, entry: entries.Abort) -> None:
        if entry.rank == self._rank:
            self.failures.pop(entry.sequence, None)
        else:
            self.executor.abort(entry.sequence, HorovodInternalError(f"given up because {entry.text}"))

    def _end(self, operation: Operation) -> None:
        for part in operation.parts:
            self._executing.discard(part.signature.key)
        if self._tracer is not None:
            self._tracer.transferred(operation)
        self._on_end()

    def _trace_negotiation(self, answered: Iterable[Pending]) -> None:
        """The coordinator traces what it negotiates itself, and sees all ranks come."""
        if self._tracer is not None and self._rank != min(self._state.live()):
            for pending in answered:
                self._tracer.negotiated(pending.signature, pending.since)


_FOLLOW: dict[type, Callable[[Client, Any], None]] = {
    entries.Define: Client._define,
    entries.Evict: Client._evict,
    entries.Answer: Client._answer,
    entries.Execute: Client._execute,
    entries.Failure: Client._fail,
    entries.Departed: Client._depart,
    entries.Abort: Client._abort,
    entries.ChangeSet: Client._change_set,
}


def _zeros(signature: Signature) -> Request:
    """What a rank that has joined puts into an allreduce that it must take part in."""
    array = np.zeros(signature.shape, dtype_of(signature.dtype))
    return Request(
        signature.name, signature.kind, array, ReduceOp(signature.op), signature.prescale, signature.postscale,
        output=array, process_set=signature.process_set, dtype_name=signature.dtype,
    )  # fmt: skip
