"""An endpoint whose messages are seen in the timeline: a row a peer, with when something was sent to it and awaited from it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from hvd_gossip.tasks import Description, Future, Task
from hvd_gossip.transport.endpoint import Array, Endpoint, Message

T = TypeVar("T")
SEND, RECEIVE = "SEND", "RECEIVE"


class Span(Protocol):
    """`Recorder.span`."""

    def __call__(
        self, row: str, name: str, start: float, end: float, args: dict[str, int] | None = None, track: str = ""
    ) -> None: ...


class Burst:
    """Messages one way between two ranks that are under way at the same time: one event.

    Attributes:
        under_way: how many are, now.
        messages, size: how many there were, and their bytes.
        since: when the first one began.
    """

    __slots__ = ("messages", "since", "size", "under_way")

    def __init__(self, since: float) -> None:
        self.under_way = self.messages = self.size = 0
        self.since = since


class TracedEndpoint:
    """An endpoint for an algorithm: does what `endpoint` does, and says so. Owner: the engine's thread.

    Args:
        endpoint: does the work.
        span: takes what the timeline shows: on row "peer N", track SEND or RECEIVE, with the number of messages and bytes.
            A RECEIVE begins when this rank is ready for the peer's message, so it holds the wait for that peer.
    """

    def __init__(self, endpoint: Endpoint, span: Span) -> None:
        self._endpoint, self._span = endpoint, span
        self._bursts: dict[tuple[int, str], Burst] = {}
        self.rank, self.size, self.rng = endpoint.rank, endpoint.size, endpoint.rng
        self.now = endpoint.now
        self.sleep = endpoint.sleep
        self.poll = endpoint.poll
        self.shared = endpoint.shared

    def send(self, dest: int, channel: int, payload: Array | bytes) -> Future[None]:
        return self._note(dest, SEND, payload, self._endpoint.send(dest, channel, payload))

    def recv(self, source: int, channel: int, into: Array) -> Future[None]:
        return self._note(source, RECEIVE, into, self._endpoint.recv(source, channel, into))

    def recv_any(self, channel: int) -> Future[Message]:
        return self._endpoint.recv_any(channel)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: Description = "task") -> Task[T]:
        return self._endpoint.spawn(coroutine, name)

    def _note(self, peer: int, what: str, payload: Array | bytes, future: Future[None]) -> Future[None]:
        key = peer, what
        burst = self._bursts.get(key)
        if burst is None:
            burst = self._bursts[key] = Burst(self.now())
        burst.under_way += 1
        burst.messages += 1
        burst.size += len(payload) if isinstance(payload, bytes) else payload.nbytes
        future.add_callback(self._done(key, burst))
        return future

    def _done(self, key: tuple[int, str], burst: Burst) -> Callable[[Future[None]], None]:
        def done(_: Future[None]) -> None:
            burst.under_way -= 1
            if not burst.under_way:
                del self._bursts[key]
                peer, what = key
                args = {"messages": burst.messages, "bytes": burst.size}
                self._span(f"peer {peer}", what, burst.since, self.now(), args, what)

        return done
