"""Runs transfers: at most MAX_RUNNING at a time, started in the coordinator's order on every rank.

The oldest transfer that is unfinished anywhere has been started everywhere, so the limit cannot make ranks wait for each
other in a circle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from hvd_gossip.buffers.arrays import module_of
from hvd_gossip.collectives.allreduce import reduce_vectors
from hvd_gossip.collectives.broadcast import tree_broadcast
from hvd_gossip.collectives.gather import ring_allgather
from hvd_gossip.collectives.reduction import reduction_of
from hvd_gossip.collectives.request import Request, Result, Signature
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.tasks import Future, Task
from hvd_gossip.transport.endpoint import COLLECTIVE_BASE, COLLECTIVE_COUNT, Array, Endpoint

MAX_RUNNING = 4


class Part(Protocol):
    """One rank's request in flight."""

    request: Request
    signature: Signature
    future: Future[Result]


@dataclass
class Operation:
    """One transfer.

    Attributes:
        sequence: its number in the coordinator's order.
        parts: the requests that it serves; several only for a fused allreduce.
        ranks: who takes part.
        sizes: as in Result.
        started: when its task was started, seconds.
    """

    sequence: int
    parts: Sequence[Part]
    ranks: tuple[int, ...]
    sizes: tuple[int, ...]
    started: float = 0.0

    @property
    def channel(self) -> int:
        return COLLECTIVE_BASE + self.sequence % COLLECTIVE_COUNT

    def __str__(self) -> str:
        names = [part.signature.name for part in self.parts]
        more = f" and {len(names) - 1} fused with it" if len(names) > 1 else ""
        return f"{self.parts[0].signature.kind} {names[0]!r}{more}"

    def finish(self, outputs: Sequence[Array]) -> None:
        """Completes its requests."""
        for part, output in zip(self.parts, outputs, strict=True):
            part.future.set_result(Result(output, self.sizes, self.ranks))

    def fail(self, error: BaseException) -> None:
        """Fails all its requests."""
        for part in self.parts:
            part.future.set_error(error)


class Executor:
    """Runs transfers on one rank.

    Args:
        wait_timeout: seconds that one transfer may last.
        chunk_bytes: of the pieces in which arrays travel.
        on_end: called with every operation that has ended, before its requests are completed.
        on_failure: called as `on_failure(operation, error)` when one failed here, not by `abort`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        wait_timeout: float,
        chunk_bytes: int,
        *,
        on_end: Callable[[Operation], None],
        on_failure: Callable[[Operation, BaseException], None],
    ) -> None:
        self._endpoint = endpoint
        self._wait_timeout = wait_timeout
        self._chunk_bytes = chunk_bytes
        self._on_end = on_end
        self._on_failure = on_failure
        self._waiting: deque[Operation] = deque()
        self._running: dict[int, tuple[Operation, Task[None]]] = {}

    @property
    def idle(self) -> bool:
        """Whether no transfer runs or waits to be run."""
        return not self._running

    def submit(self, operation: Operation) -> None:
        """Runs an operation after those submitted before it have been started."""
        self._waiting.append(operation)
        self._start()

    def abort(self, sequence: int, error: BaseException) -> None:
        """Gives a transfer up, if it is not done, and fails its requests."""
        for operation in self._waiting:
            if operation.sequence == sequence:
                self._waiting.remove(operation)
                self._end(operation, None, error)
                return
        if sequence in self._running:
            operation, task = self._running[sequence]
            task.cancel()
            self._end(operation, None, error)

    def abort_all(self, error: BaseException) -> None:
        """Gives all transfers up."""
        for sequence in [*(one.sequence for one in self._waiting), *self._running]:
            self.abort(sequence, error)

    def next_due(self) -> float | None:
        """When the first running transfer will have lasted too long, or None."""
        return min((one.started + self._wait_timeout for one, _ in self._running.values()), default=None)

    def expire(self, now: float) -> None:
        """Gives up transfers that have lasted too long; the error names who was waited for."""
        for operation, task in list(self._running.values()):
            if now >= operation.started + self._wait_timeout:
                text = (
                    f"rank {self._endpoint.rank}: {operation} among ranks {list(operation.ranks)} was given up after "
                    f"{self._wait_timeout:g} s (wait_timeout) of {task.waiting_for()}"
                )
                error = WaitTimeoutError(text)
                self.abort(operation.sequence, error)
                self._on_failure(operation, error)

    def _start(self) -> None:
        while self._waiting and len(self._running) < MAX_RUNNING:
            operation = self._waiting.popleft()
            operation.started = self._endpoint.now()
            task = self._endpoint.spawn(self._run(operation), ("transfer", operation.sequence))
            self._running[operation.sequence] = operation, task

    async def _run(self, operation: Operation) -> None:
        try:
            outputs = await self._execute(operation)
        except Exception as cause:
            error = HorovodInternalError(f"rank {self._endpoint.rank}: {operation} failed: {cause}")
            error.__cause__ = cause
            self._end(operation, None, error)
            self._on_failure(operation, error)
        else:
            self._end(operation, outputs, None)

    def _end(self, operation: Operation, outputs: Sequence[Array] | None, error: BaseException | None) -> None:
        self._running.pop(operation.sequence, None)
        self._start()
        self._on_end(operation)
        if error is None:
            operation.finish(outputs or ())
        else:
            operation.fail(error)

    def _execute(self, operation: Operation) -> Awaitable[list[Array]]:
        kind = operation.parts[0].signature.kind
        if kind == "allreduce":
            return self._allreduce(operation)
        return self._allgather(operation) if kind == "allgather" else self._broadcast(operation)

    async def _allreduce(self, operation: Operation) -> list[Array]:
        arrays = [_array(part) for part in operation.parts]
        outputs = [
            module_of(array).empty_like(array) if part.request.output is None else part.request.output
            for part, array in zip(operation.parts, arrays, strict=True)
        ]
        in_place = all(output is array for output, array in zip(outputs, arrays, strict=True))
        source = Vector(arrays)
        target = source if in_place else Vector(outputs)
        reduction = reduction_of(operation.parts[0].signature, arrays[0], len(operation.ranks))
        ranks, channel = operation.ranks, operation.channel
        await reduce_vectors(self._endpoint, source, target, ranks, channel, reduction, self._chunk_bytes)
        return outputs

    async def _allgather(self, operation: Operation) -> list[Array]:
        array = _array(operation.parts[0])
        row = array.shape[1:]
        output = module_of(array).empty((sum(operation.sizes), *row), array.dtype)
        lengths = [size * prod(row) for size in operation.sizes]
        block, flat = array.reshape(-1), output.reshape(-1)
        ranks, channel = operation.ranks, operation.channel
        await ring_allgather(self._endpoint, block, flat, lengths, ranks, channel, self._chunk_bytes)
        return [output]

    async def _broadcast(self, operation: Operation) -> list[Array]:
        request = operation.parts[0].request
        array = _array(operation.parts[0])
        is_root = self._endpoint.rank == request.root_rank
        output = module_of(array).empty_like(array) if request.output is None else request.output
        flat = (array if is_root else output).reshape(-1)
        ranks, channel = operation.ranks, operation.channel
        await tree_broadcast(self._endpoint, flat, ranks, request.root_rank, channel, self._chunk_bytes)
        if is_root and output is not array:
            output[...] = array
        return [output]


def _array(part: Part) -> Array:
    assert part.request.array is not None, "barriers are answered by the coordinator"
    return part.request.array
