"""Where a replica's chunks live, and how they get to where MPI can send them from.

`HostSpace`: NumPy; a chunk can be sent as it is. `CudaSpace` (buffers/cuda.py): CuPy; device buffers when MPI is
CUDA-aware, else pinned host staging. Algorithms see only this protocol.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np

from hvd_gossip.buffers.arrays import Array
from hvd_gossip.tasks import Future
from hvd_gossip.transport.endpoint import Endpoint


class Guarded(Protocol):
    """What two threads share: a chunk of a replica.

    Attributes:
        lock: held by the one that touches it.
        fences: on a GPU, the event of each side's last use.
    """

    lock: threading.Lock
    fences: dict[str, Any]


class Space(Protocol):
    """Memory of one device.

    Attributes:
        direct: whether MPI can send and receive a replica's own memory.
        immediate: whether everything has happened when its call returns, so that `settled` need not be awaited.
    """

    direct: bool
    immediate: bool

    def zeros(self, length: int, dtype: np.dtype[Any]) -> Array:
        """Memory beside the parameters, zero."""

    def wire(self, length: int, dtype: np.dtype[Any]) -> Array:
        """A buffer that MPI can send from and receive into."""

    def engine(self, chunk: Guarded) -> Any:
        """Context in which the engine's thread may touch the chunk: its lock, and on a GPU the order of streams."""

    def training(self, chunk: Guarded) -> Any:
        """The same for the training thread."""

    def computing(self) -> Any:
        """Context for the engine's arithmetic outside of a chunk's lock."""

    def bind(self) -> None:
        """Engine's thread: all of its arithmetic from now on is about this device, in order."""

    def updated(self) -> None:
        """Training thread: what it enqueued so far comes before what the engine enqueues from now on."""

    def follow(self) -> None:
        """Training thread: what the engine enqueued so far comes before what this thread enqueues from now on."""

    def publish(self, value: Array, wire: Array) -> None:
        """wire <- value, converted to the wire's type; complete once `settled`."""

    def fetch(self, wire: Array) -> Array:
        """What arrived, on the replica's device; valid until the wire buffer is received into again."""

    def settled(self, endpoint: Endpoint) -> Awaitable[None]:
        """Done when everything that the engine enqueued so far has happened."""


class HostSpace:
    """NumPy memory: operations happen at once, a chunk's lock is all the order there is."""

    direct = True
    immediate = True

    def zeros(self, length: int, dtype: np.dtype[Any]) -> Array:
        return np.zeros(length, dtype)

    def wire(self, length: int, dtype: np.dtype[Any]) -> Array:
        return np.empty(length, dtype)

    def engine(self, chunk: Guarded) -> Any:
        return chunk.lock

    training = engine

    def computing(self) -> Any:
        return _NOTHING

    def bind(self) -> None:
        """Host memory has no queue."""

    updated = follow = bind

    def publish(self, value: Array, wire: Array) -> None:
        if wire.dtype == value.dtype:
            wire[...] = value
        else:
            # A value beyond the wire type's range becomes infinite and is refused there.
            with np.errstate(over="ignore"):
                wire[...] = value

    def fetch(self, wire: Array) -> Array:
        return wire

    def settled(self, endpoint: Endpoint) -> Awaitable[None]:
        return _SETTLED


_NOTHING = nullcontext()
_SETTLED: Future[None] = Future("nothing")
_SETTLED.set_result(None)
