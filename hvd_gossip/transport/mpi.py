"""The Endpoint over mpi4py. Everything here runs on the engine's thread, `import mpi4py.MPI` included.

Messages are bytes on a clone of the user's communicator, so that they never meet the user's own. No MPI collective is
called after the clone: a dead or slow rank can hold up only those who talk to it.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from hvd_gossip.errors import PeerFailedError, TransportError
from hvd_gossip.tasks import Description, Future, Scheduler, Task, describe
from hvd_gossip.transport.endpoint import CHANNELS, Array, Message

T = TypeVar("T")
EAGER = 2048
"""Messages up to so many bytes are received at once when matched; MPI delivers them without the sender's help."""
SENT = -1
"""In place of a length: the request is a send."""


def load_mpi(thread_level: str = "multiple") -> Any:
    """Imports mpi4py.MPI, which starts MPI unless the user's script did.

    Args:
        thread_level: what to ask for if MPI is not started yet: "multiple" or "serialized".

    Raises:
        TransportError: the level that MPI granted is below SERIALIZED.
    """
    import mpi4py

    if not _is_loaded():
        mpi4py.rc.thread_level = thread_level
    from mpi4py import MPI

    if not MPI.Is_initialized():
        levels = {"multiple": MPI.THREAD_MULTIPLE, "serialized": MPI.THREAD_SERIALIZED}
        MPI.Init_thread(levels[thread_level])
    if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
        raise TransportError(
            f"MPI was started with thread level {thread_level_name(MPI)}, but the engine's thread needs at least SERIALIZED; "
            "set mpi4py.rc.thread_level = 'serialized' before importing mpi4py.MPI, or call hvd.init() first"
        )
    return MPI


def _is_loaded() -> bool:
    import sys

    return "mpi4py.MPI" in sys.modules


def thread_level_name(mpi: Any) -> str:
    """Name of the thread level that MPI granted, such as "MULTIPLE"."""
    names = {getattr(mpi, f"THREAD_{name}"): name for name in ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")}
    return names[mpi.Query_thread()]


def as_bytes(payload: Array | bytes) -> Any:
    """The payload as something MPI takes as bytes, without a copy; CuPy arrays stay on their device.

    Raises:
        ValueError: the array is not C-contiguous.
    """
    if isinstance(payload, bytes):
        return payload
    if not payload.flags.c_contiguous:
        raise ValueError(
            f"only C-contiguous arrays can be sent, not one of shape {payload.shape} with strides {payload.strides}"
        )
    return payload.reshape(-1).view("uint8")


class _Matched(NamedTuple):
    """A message that has come, of `length` bytes, and is not received yet: MPI keeps it for this handle."""

    source: int
    message: Any
    length: int


class MpiEndpoint:
    """Endpoint of one MPI process. Owner: the engine's thread."""

    def __init__(self, comm: Any, scheduler: Scheduler, seed: int = 0) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm
        self._scheduler = scheduler
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self.rng = np.random.default_rng((seed, self.rank))
        self._requests: list[Any] = []
        self._pending: list[tuple[Future[Any], Any, int]] = []
        self._listening: dict[int, Future[Message]] = {}
        self._unclaimed: dict[int, deque[_Matched]] = {}
        self._status = MPI.Status()
        self._polled: list[tuple[Callable[[], bool], Future[None]]] = []
        self._timers: list[tuple[float, int, Future[None]]] = []
        self._timer_count = 0
        self._cancelled_timers = 0
        self._windows: list[Any] = []

    def now(self) -> float:
        return time.perf_counter()

    def send(self, dest: int, channel: int, payload: Array | bytes) -> Future[None]:
        future: Future[None] = Future(("sending to rank", dest, "on channel", channel))
        data = as_bytes(payload)
        try:
            request = self._comm.Isend([data, self._mpi.BYTE], dest, channel)
            sent = request.Test()
        except self._mpi.Exception as error:
            future.set_error(self._failure(error, dest))
            return future
        if sent:
            future.set_result(None)
        else:
            self._track(request, future, data, SENT)
        return future

    def recv(self, source: int, channel: int, into: Array) -> Future[None]:
        future: Future[None] = Future(("receiving from rank", source, "on channel", channel))
        data = as_bytes(into)
        matched = self._claim(channel, source) if self._unclaimed else None
        try:
            if matched is not None:
                request = matched.message.Irecv([data, self._mpi.BYTE])
            else:
                request = self._comm.Irecv([data, self._mpi.BYTE], source, channel)
        except self._mpi.Exception as error:
            future.set_error(self._failure(error, source))
            return future
        future.on_cancel = request.Cancel
        self._track(request, future, data, int(into.nbytes))
        return future

    def recv_any(self, channel: int) -> Future[Message]:
        if not 0 <= channel < CHANNELS:
            raise ValueError(f"channel {channel} is not in [0, {CHANNELS})")
        if channel in self._listening:
            raise RuntimeError(f"rank {self.rank}: a second recv_any on channel {channel} while one is pending")
        future: Future[Message] = Future(("any message on channel", channel), lambda: self._forget(channel))
        matched = self._claim(channel) if self._unclaimed else None
        if matched is not None:
            self._deliver(matched, future)
        else:
            self._listening[channel] = future
        return future

    def sleep(self, seconds: float) -> Future[None]:
        future: Future[None] = Future("a timer", self._cancel_timer)
        self._timer_count += 1
        heapq.heappush(self._timers, (self.now() + seconds, self._timer_count, future))
        return future

    def _cancel_timer(self) -> None:
        """Most timers are limits that are never reached: forgets the cancelled ones when they are the majority."""
        self._cancelled_timers += 1
        if self._cancelled_timers > max(64, len(self._timers) // 2):
            self._timers = [timer for timer in self._timers if not timer[2].done()]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    def poll(self, ready: Callable[[], bool], what: Description) -> Future[None]:
        future: Future[None] = Future(what)
        if ready():
            future.set_result(None)
        else:
            self._polled.append((ready, future))
        return future

    def shared(self, nbytes: int, name: str, ranks: Sequence[int]) -> Future[Array]:
        mpi = self._mpi
        future: Future[Array] = Future(("memory shared by ranks", *ranks))
        try:
            comm = self._comm.Create_group(self._comm.Get_group().Incl(list(ranks)))
            node = comm.Split_type(mpi.COMM_TYPE_SHARED)
            if node.Get_size() < len(ranks):
                text = (
                    f"rank {self.rank} shares its host with {node.Get_size()} of ranks {list(ranks)}, {name} needs all"
                )
                future.set_error(TransportError(text))
                return future
            window = mpi.Win.Allocate_shared(nbytes if self.rank == ranks[0] else 0, 1, mpi.INFO_NULL, node)
            memory = np.frombuffer(window.Shared_query(0)[0], np.uint8, nbytes)
            if self.rank == ranks[0]:
                memory.fill(0)
            node.Barrier()
        except mpi.Exception as error:
            future.set_error(self._failure(error, None))
            return future
        self._windows.append(window)
        future.set_result(memory)
        return future

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: Description = "task") -> Task[T]:
        return self._scheduler.spawn(coroutine, name)

    def progress(self) -> bool:
        """Looks once at everything outstanding and completes what is done. True if anything was."""
        moved = self._test_requests() if self._requests else False
        if self._listening:
            moved |= self._match()
        if self._polled:
            moved |= self._test_polled()
        if self._timers:
            moved |= self._fire_timers()
        return moved

    def busy(self) -> bool:
        """Whether a message is under way, as opposed to only listening or sleeping."""
        return bool(self._requests or self._polled)

    def next_timer(self) -> float | None:
        """When the next timer is due, on `now()`'s clock."""
        return self._timers[0][0] if self._timers else None

    def _track(self, request: Any, future: Future[Any], keep: Any, length: int) -> None:
        self._requests.append(request)
        self._pending.append((future, keep, length))

    def _test_requests(self) -> bool:
        statuses: list[Any] = []
        try:
            done = self._mpi.Request.Testsome(self._requests, statuses)
        except self._mpi.Exception as error:
            # What it completed, well or not, is null now, in the order of the statuses.
            null = self._mpi.REQUEST_NULL
            done = [index for index, request in enumerate(self._requests) if request == null]
            if not done:
                raise self._failure(error, None) from error
        if not done:
            return False
        finished = [(self._pending[index], status) for index, status in zip(done, statuses, strict=False)]
        for index in sorted(done, reverse=True):
            self._drop(index)
        for (future, _, length), status in finished:
            self._complete(future, length, status)
        return True

    def _complete(self, future: Future[Any], length: int, status: Any) -> None:
        code = status.Get_error()
        if code != self._mpi.SUCCESS:
            future.set_error(self._failure(self._mpi.Exception(code), None, future))
        elif length != SENT and not future.done() and status.Get_count(self._mpi.BYTE) != length:
            count = status.Get_count(self._mpi.BYTE)
            text = f"rank {self.rank}: {count} bytes arrived instead of {length} while {describe(future.what)}"
            future.set_error(TransportError(text))
        else:
            future.set_result(None)

    def _drop(self, index: int) -> None:
        """Forgets request `index` in O(1): the last one takes its place."""
        self._requests[index] = self._requests[-1]
        self._pending[index] = self._pending[-1]
        self._requests.pop()
        self._pending.pop()

    def _match(self) -> bool:
        """Looks for one message that no receive was posted for, and gives it to its channel's listener if there is one.

        One look for all channels: each takes MPI's progress engine, which on a crowded host gives the core away every time
        that it finds nothing.
        """
        status = self._status
        message = self._comm.Improbe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, status)
        if message is None:
            return False
        channel = status.Get_tag()
        matched = _Matched(status.Get_source(), message, status.Get_count(self._mpi.BYTE))
        future = self._listening.pop(channel, None)
        if future is not None:
            self._deliver(matched, future)
        else:
            self._unclaimed.setdefault(channel, deque()).append(matched)
        return True

    def _claim(self, channel: int, source: int | None = None) -> _Matched | None:
        """The first message that came on a channel, from that rank if one is given, before anybody wanted it."""
        waiting = self._unclaimed.get(channel)
        if waiting is None:
            return None
        for matched in waiting:
            if source is None or matched.source == source:
                waiting.remove(matched)
                if not waiting:
                    del self._unclaimed[channel]
                return matched
        return None

    def _deliver(self, matched: _Matched, future: Future[Message]) -> None:
        data = bytearray(matched.length)
        if len(data) <= EAGER:
            matched.message.Recv([data, self._mpi.BYTE])
            future.set_result(Message(matched.source, bytes(data)))
        else:
            self._receive_long(matched.message, matched.source, data, future)

    def _receive_long(self, message: Any, source: int, data: bytearray, future: Future[Message]) -> None:
        arrived: Future[None] = Future(("receiving from rank", source))
        arrived.add_callback(lambda done: _pass_on(done, future, Message(source, bytes(data))))
        self._track(message.Irecv([data, self._mpi.BYTE]), arrived, data, len(data))

    def _forget(self, channel: int) -> None:
        self._listening.pop(channel, None)

    def _test_polled(self) -> bool:
        waiting = []
        for entry in self._polled:
            if entry[0]():
                entry[1].set_result(None)
            else:
                waiting.append(entry)
        moved = len(waiting) < len(self._polled)
        self._polled = waiting
        return moved

    def _fire_timers(self) -> bool:
        now, fired = self.now(), False
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].set_result(None)
            fired = True
        return fired

    def _failure(self, error: Any, peer: int | None, future: Future[Any] | None = None) -> TransportError:
        what = "" if future is None else f" while {describe(future.what)}"
        text = f"rank {self.rank}: {error.Get_error_string()}{what}"
        failed = getattr(self._mpi, "ERR_PROC_FAILED", None)
        if failed is not None and error.Get_error_class() == failed:
            return PeerFailedError(self._peer_of(future) if peer is None else peer, text)
        return TransportError(text)

    @staticmethod
    def _peer_of(future: Future[Any] | None) -> int:
        return int(future.what[1]) if future is not None and isinstance(future.what, tuple) else -1


def _pass_on(arrived: Future[None], future: Future[Message], message: Message) -> None:
    error = arrived.error()
    if error is None:
        future.set_result(message)
    else:
        future.set_error(error)
