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

from hvd_gossip.buffers.cuda import CudaSpace, device_space
from hvd_gossip.collectives.adasum import AdasumAllreduce
from hvd_gossip.collectives.broadcast import tree_broadcast
from hvd_gossip.collectives.exchange import alltoall, exchange_counts, reduce_scatter
from hvd_gossip.collectives.flow import CHUNK_BYTES, Transfer
from hvd_gossip.collectives.gather import ring_allgather
from hvd_gossip.collectives.memory import HOST, DeviceMemory, Memory, is_on_device
from hvd_gossip.collectives.reduce import reduce_vectors
from hvd_gossip.collectives.reduction import reduction_of
from hvd_gossip.collectives.request import ReduceOp, Request, Result, Signature
from hvd_gossip.collectives.rows import even_rows, full_splits
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
        count: of the ranks that an average is over; more than take part if the others, who have joined, put in zeros.
        since: when the coordinator's answer came, seconds; `started`: when its task was started; `ready`: when the device had
            computed the data, where that was waited for.
    """

    sequence: int
    parts: Sequence[Part]
    ranks: tuple[int, ...]
    sizes: tuple[int, ...]
    count: int
    since: float = 0.0
    started: float = 0.0
    ready: float = 0.0

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


def _staged(arrays: Sequence[Array]) -> CudaSpace:
    return device_space(arrays[0].device.id, direct=False)


@dataclass(frozen=True)
class TransferOptions:
    """How transfers are run.

    Attributes:
        wait_timeout: seconds that one may last.
        chunk_bytes: of the pieces in which arrays travel.
        space_of: the space of CuPy arrays, by which the engine's work on them is ordered; the default stages through host
            memory.
    """

    wait_timeout: float = 1800.0
    chunk_bytes: int = CHUNK_BYTES
    space_of: Callable[[Sequence[Array]], CudaSpace] = _staged


class Executor:
    """Runs transfers on one rank.

    Args:
        on_end: called with every operation that has ended, before its requests are completed.
        on_failure: called as `on_failure(operation, error)` when one failed here, not by `abort`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        options: TransferOptions,
        *,
        on_end: Callable[[Operation], None],
        on_failure: Callable[[Operation, BaseException], None],
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._devices: dict[int, DeviceMemory] = {}
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
        return min((one.started + self._options.wait_timeout for one, _ in self._running.values()), default=None)

    def expire(self, now: float) -> None:
        """Gives up transfers that have lasted too long; the error names who was waited for."""
        for operation, task in list(self._running.values()):
            if now >= operation.started + self._options.wait_timeout:
                text = (
                    f"rank {self._endpoint.rank}: {operation} among ranks {list(operation.ranks)} was given up after "
                    f"{self._options.wait_timeout:g} s (wait_timeout) of {task.waiting_for()}"
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

    async def _execute(self, operation: Operation) -> list[Array]:
        memory = self._memory(operation.parts[0].request.array)
        transfer = Transfer(self._endpoint, operation.ranks, operation.channel, self._options.chunk_bytes, memory)
        for part in operation.parts:
            if part.request.ready is not None:
                await memory.reached(part.request.ready)
                operation.ready = self._endpoint.now()
        outputs = await _ALGORITHMS[operation.parts[0].signature.kind](transfer, operation)
        await memory.settled()
        return outputs

    def _memory(self, array: Array) -> Memory:
        if not is_on_device(array):
            return HOST
        device = array.device.id
        if device not in self._devices:
            self._devices[device] = DeviceMemory(self._endpoint, array, self._options.space_of([array]))
        return self._devices[device]


async def _allreduce(transfer: Transfer, operation: Operation) -> list[Array]:
    arrays = [_array(part) for part in operation.parts]
    outputs = [_output(transfer.memory, part) for part in operation.parts]
    in_place = all(output is array for output, array in zip(outputs, arrays, strict=True))
    source = Vector(arrays)
    target = source if in_place else Vector(outputs)
    signature = operation.parts[0].signature
    if signature.op == ReduceOp.ADASUM:
        await AdasumAllreduce(transfer, source, target, signature.prescale * signature.postscale).run()
        return outputs
    absent = operation.count > len(operation.ranks)
    await reduce_vectors(transfer, source, target, reduction_of(signature, arrays[0], operation.count, absent))
    return outputs


async def _reducescatter(transfer: Transfer, operation: Operation) -> list[Array]:
    array = _array(operation.parts[0])
    operation.sizes = even_rows(array.shape[0], len(operation.ranks))
    row = array.shape[1:]
    lengths = [rows * prod(row) for rows in operation.sizes]
    output = _result(transfer.memory, operation.parts[0], lengths[transfer.position])
    reduction = reduction_of(operation.parts[0].signature, array, operation.count)
    await reduce_scatter(transfer, array.reshape(-1), output, lengths, reduction)
    return [output.reshape(operation.sizes[transfer.position], *row)]


async def _alltoall(transfer: Transfer, operation: Operation) -> list[Array]:
    array = _array(operation.parts[0])
    splits = full_splits(operation.parts[0].request.splits, array.shape[0], len(operation.ranks))
    received = tuple(await exchange_counts(transfer, splits))
    operation.sizes = received
    row = array.shape[1:]
    given, taken = ([rows * prod(row) for rows in some] for some in (splits, received))
    output = _result(transfer.memory, operation.parts[0], sum(taken))
    await alltoall(transfer, array.reshape(-1), output, given, taken)
    return [output.reshape(sum(received), *row)]


async def _allgather(transfer: Transfer, operation: Operation) -> list[Array]:
    array = _array(operation.parts[0])
    row = array.shape[1:]
    lengths = [size * prod(row) for size in operation.sizes]
    output = _result(transfer.memory, operation.parts[0], sum(lengths))
    await ring_allgather(transfer, array.reshape(-1), output, lengths)
    return [output.reshape(sum(operation.sizes), *row)]


async def _broadcast(transfer: Transfer, operation: Operation) -> list[Array]:
    part = operation.parts[0]
    array, output = _array(part), _output(transfer.memory, part)
    is_root = transfer.endpoint.rank == part.request.root_rank
    await tree_broadcast(transfer, (array if is_root else output).reshape(-1), part.request.root_rank)
    if is_root and output is not array:
        with transfer.memory.computing():
            output[...] = array
    return [output]


_ALGORITHMS: dict[str, Callable[[Transfer, Operation], Awaitable[list[Array]]]] = {
    "allreduce": _allreduce,
    "allgather": _allgather,
    "broadcast": _broadcast,
    "alltoall": _alltoall,
    "reducescatter": _reducescatter,
}
"""What carries out each kind; kinds without an array are answered by the coordinator."""


def _array(part: Part) -> Array:
    assert part.request.array is not None
    return part.request.array


def _output(memory: Memory, part: Part) -> Array:
    array = _array(part)
    if part.request.output is not None:
        return part.request.output
    return _result(memory, part, array.size).reshape(array.shape)


def _result(memory: Memory, part: Part, length: int) -> Array:
    """A new array of the part's type."""
    return memory.empty_for(part.request.stream, length, _array(part).dtype)
