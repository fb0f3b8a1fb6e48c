"""Messages, receives and timers of a simulated world, each its own future; and how bytes get from array to array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hvd_gossip.tasks import Description, Future
from hvd_gossip.transport.endpoint import Array

if TYPE_CHECKING:
    from hvd_gossip.transport.simulated import SimulatedWorld
    from hvd_gossip.transport.simulated_endpoint import SimulatedEndpoint


class Send(Future[None]):
    """A message from the call of `send` until its last byte has arrived.

    Attributes:
        nbytes: how long it is taken to be: what it stands for, not what is copied.
    """

    __slots__ = ("channel", "dest", "eager", "nbytes", "payload", "source")

    def __init__(self, source: int, dest: int, channel: int, payload: Array | bytes, nbytes: float) -> None:
        Future.__init__(self, ("sending to rank", dest, "on channel", channel))
        self.source = source
        self.dest = dest
        self.channel = channel
        self.payload = payload
        self.nbytes = nbytes
        self.eager = True

    def take_snapshot(self, _: Any = None) -> None:
        if not isinstance(self.payload, bytes):
            self.payload = self.payload.copy()


class Receive(Future[Any]):
    """A posted receive; without `into`, one from anybody."""

    __slots__ = ("endpoint", "into", "key")

    def __init__(self, endpoint: SimulatedEndpoint, key: int, into: Array | None, what: Description) -> None:
        Future.__init__(self, what)
        self.endpoint = endpoint
        self.key = key
        self.into = into

    def cancel(self, error: BaseException | None = None) -> None:
        """As in MPI a receive that was matched already goes on and fills its array."""
        if not self.done():
            self.endpoint.withdraw(self)
        Future.cancel(self, error)


class Timer(Future[None]):
    """A sleep; the world forgets cancelled ones."""

    __slots__ = ("_world",)

    def __init__(self, world: SimulatedWorld) -> None:
        Future.__init__(self, "a timer")
        self._world = world

    def cancel(self, error: BaseException | None = None) -> None:
        if not self.done():
            self._world.forget_timer()
        Future.cancel(self, error)


def check_array(array: Array, use: str) -> int:
    """Bytes of a C-contiguous NumPy array of plain values.

    Raises:
        TypeError: it is something else.
        ValueError: it is not contiguous, or holds Python objects.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"cannot {use} {type(array).__name__}: only NumPy arrays and bytes travel in a simulated world")
    if not array.flags.c_contiguous or array.dtype.hasobject:
        raise ValueError(
            f"cannot {use} an array of shape {array.shape}, dtype {array.dtype} and strides {array.strides}: "
            "it must be C-contiguous and hold no Python objects"
        )
    return array.nbytes


def copy_bytes(data: Array | bytes, into: Array) -> None:
    """Copies bytes, whatever the two dtypes and shapes; both have the same number of bytes."""
    if isinstance(data, bytes):
        into.reshape(-1).view(np.uint8).data[:] = data
    elif data.dtype is into.dtype and data.shape == into.shape:
        into[...] = data
    else:
        into.reshape(-1).view(np.uint8)[:] = data.reshape(-1).view(np.uint8)
