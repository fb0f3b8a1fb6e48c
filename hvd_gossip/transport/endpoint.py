"""The few operations that algorithms, collectives and work sharing are written against.

Two implementations: `transport.mpi.MpiEndpoint` (real processes) and `transport.simulated.SimulatedEndpoint` (a virtual
clock). All methods are called from the scheduler's thread only and return at once; what takes time is a `Future`.

Channels are small non-negative integers below `CHANNELS` (MPI guarantees tags up to 32767). Messages from one rank to
another on one channel arrive in the order they were sent; between channels there is no order.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from hvd_gossip.tasks import Description, Future, Task

T = TypeVar("T")
Array = Any
"""A C-contiguous NumPy or CuPy array of any dtype; it travels as its bytes."""

CHANNELS = 32768
"""Channels are 0 <= channel < CHANNELS."""

CONTROL = 1
"""Channel of the collectives' controller (requests, responses, departures)."""
SHARING = 2
"""Channel of work-sharing requests; replies go to `SHARING + 1`."""
PROBE = 4
"""Channel of the messages that measure links."""
ALGORITHM_BASE, ALGORITHM_STRIDE, ALGORITHM_LIMIT = 64, 16, 8192
"""The i-th algorithm of a process owns channels [BASE + i * STRIDE, BASE + (i + 1) * STRIDE), below LIMIT."""
COLLECTIVE_BASE, COLLECTIVE_COUNT = 8192, 16384
"""Data of the s-th collective operation travels on channel BASE + s % COUNT."""


class Message(NamedTuple):
    """What `recv_any` gives: who sent it, and the bytes."""

    source: int
    data: bytes


class Endpoint(Protocol):
    """One rank's access to the others.

    Attributes:
        rank: this rank, 0 <= rank < size.
        size: number of ranks.
        rng: this rank's own random stream, seeded by (run seed, rank).
    """

    rank: int
    size: int
    rng: np.random.Generator

    def now(self) -> float:
        """Seconds on a clock that never goes back (virtual in the simulator)."""

    def send(self, dest: int, channel: int, payload: Array | bytes) -> Future[None]:
        """Sends a contiguous array, or bytes. The array must not change before the future is done.

        Fails with PeerFailedError if `dest` is known to have died.
        """

    def recv(self, source: int, channel: int, into: Array) -> Future[None]:
        """Receives the next message from `source` on `channel` into a contiguous array of exactly its size.

        Fails with TransportError if the message is longer, PeerFailedError if `source` died.
        """

    def recv_any(self, channel: int) -> Future[Message]:
        """The next message on `channel` from anybody, of any length; at most one such receive a channel at a time.

        For control messages: the bytes are copied. Do not mix with `recv` on one channel.
        """

    def sleep(self, seconds: float) -> Future[None]: ...

    def poll(self, ready: Callable[[], bool], what: Description) -> Future[None]:
        """Done when `ready()` is true: for events that nobody signals, such as a CUDA event's completion."""

    def shared(self, nbytes: int, name: str, ranks: Sequence[int]) -> Future[Array]:
        """Memory that these ranks, all of one host, read and write: a uint8 array, the same bytes on all, zero at first. It stays
        until the endpoint ends.

        A collective of the ranks, and one that may block: they call it at about the same time, with the same arguments.

        Args:
            nbytes: its size.
            name: tells it from other such memory.
            ranks: ascending, this one among them.

        Fails with TransportError if the ranks are on several hosts.
        """

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: Description = "task") -> Task[T]:
        """Runs a coroutine beside the others of this rank."""
