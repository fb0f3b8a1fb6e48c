"""How chunks get from where arrays live to where MPI takes them, and back: NumPy arrays as they are, CuPy's through a Space.

MPI knows no streams. So on a device, what is sent must have been computed, and what is received into must no longer be
read, before MPI is called: both are waited for by polling an event, never by blocking the engine's thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import numpy as np

from hvd_gossip.buffers.arrays import module_of
from hvd_gossip.buffers.cuda import CudaSpace
from hvd_gossip.tasks import Future
from hvd_gossip.transport.endpoint import Array, Endpoint


class Memory(Protocol):
    """Where the arrays of a transfer live.

    Attributes:
        on_device: whether chunks must be published before they are sent, and posted for before they are received.
    """

    on_device: bool

    def computing(self) -> AbstractContextManager[object]:
        """Context of all arithmetic and copies, without warnings of what infinite numbers do."""

    def empty(self, length: int, dtype: np.dtype[Any]) -> Array:
        """A chunk buffer."""

    def empty_for(self, stream: Any, length: int, dtype: np.dtype[Any]) -> Array:
        """An array for a result, to be used and freed on the stream of whoever submitted (`Request.stream`)."""

    def reached(self, event: Any) -> Awaitable[None]:
        """Done when what an event stands for has happened (`Request.ready`)."""

    def settled(self) -> Awaitable[None]:
        """Done when all that was computed so far has happened."""

    def publish(self, chunk: Array) -> tuple[Array, Future[None], Callable[[], None]]:
        """What to send instead of a chunk, when it is there, and what to call when it is sent."""

    async def prepare(self, into: Array) -> Array:
        """What to receive into instead of a chunk, once it may be written to."""

    def accept(self, arrived: Array, into: Array) -> None:
        """into <- what has arrived where `prepare` said."""


class HostMemory:
    """NumPy arrays: all that is computed has happened."""

    on_device = False

    def computing(self) -> AbstractContextManager[object]:
        return np.errstate(all="ignore")

    def empty(self, length: int, dtype: np.dtype[Any]) -> Array:
        return np.empty(length, dtype)

    def empty_for(self, stream: Any, length: int, dtype: np.dtype[Any]) -> Array:
        return np.empty(length, dtype)

    def reached(self, event: Any) -> Awaitable[None]:
        return _DONE

    def settled(self) -> Awaitable[None]:
        return _DONE

    def publish(self, chunk: Array) -> tuple[Array, Future[None], Callable[[], None]]:
        return chunk, _DONE, _nothing

    async def prepare(self, into: Array) -> Array:
        return into

    def accept(self, arrived: Array, into: Array) -> None:
        """It is there."""


class DeviceMemory:
    """CuPy arrays on one device. Staging buffers are kept for the next transfer.

    Args:
        like: an array on the device.
        space: the device, and whether MPI takes its memory.
    """

    on_device = True

    def __init__(self, endpoint: Endpoint, like: Array, space: CudaSpace) -> None:
        self._endpoint = endpoint
        self._module = module_of(like)
        self._space = space
        self._staging: dict[int, list[Array]] = {}

    def computing(self) -> AbstractContextManager[object]:
        return cast(AbstractContextManager[object], self._space.computing())

    def empty(self, length: int, dtype: np.dtype[Any]) -> Array:
        with self.computing():
            return self._module.empty(length, dtype)

    def empty_for(self, stream: Any, length: int, dtype: np.dtype[Any]) -> Array:
        return self._space.empty_for(stream, length, dtype)

    def reached(self, event: Any) -> Awaitable[None]:
        return self._space.reached(event, self._endpoint)

    def settled(self) -> Awaitable[None]:
        return self._space.settled(self._endpoint)

    def publish(self, chunk: Array) -> tuple[Array, Future[None], Callable[[], None]]:
        if self._space.direct:
            return chunk, self._settled(), _nothing
        wire = self._take(chunk.nbytes)
        view = wire.view(chunk.dtype)
        self._space.publish(chunk, view)
        return view, self._settled(), lambda: self._give(wire)

    async def prepare(self, into: Array) -> Array:
        await self._space.settled(self._endpoint)
        return into if self._space.direct else self._take(into.nbytes).view(into.dtype)

    def accept(self, arrived: Array, into: Array) -> None:
        if not self._space.direct:
            with self.computing():
                into[...] = self._space.fetch(arrived)
            self._settled().add_callback(lambda _: self._give(arrived.view(np.uint8)))

    def _settled(self) -> Future[None]:
        return cast("Future[None]", self._space.settled(self._endpoint))

    def _take(self, nbytes: int) -> Array:
        free = self._staging.get(nbytes)
        return free.pop() if free else self._space.wire(nbytes, np.dtype(np.uint8))

    def _give(self, wire: Array) -> None:
        self._staging.setdefault(wire.nbytes, []).append(wire)


def _nothing() -> None: ...


_DONE: Future[None] = Future("nothing")
_DONE.set_result(None)
HOST = HostMemory()
"""The memory of all NumPy arrays."""


def is_on_device(array: Array) -> bool:
    """Whether an array is CuPy's."""
    return getattr(array, "device", "cpu") != "cpu"
