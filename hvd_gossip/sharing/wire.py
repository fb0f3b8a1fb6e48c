"""Sending and hearing messages of work sharing over an endpoint."""

from __future__ import annotations

from collections.abc import Callable

from hvd_gossip.errors import PeerFailedError
from hvd_gossip.sharing.messages import Message, Receipt, Reply, decode, encode
from hvd_gossip.tasks import Signal, Task
from hvd_gossip.transport.endpoint import SHARING, Endpoint

REPLIES = SHARING + 1
Hear = Callable[[int, Message], None]


class Wire:
    """Two channels: answers (Reply, Receipt) have their own, so that they never queue behind requests.

    Args:
        hear: called with (source, message) for each message that arrives.
        on_dead: called with a rank that cannot be reached.
    """

    def __init__(self, endpoint: Endpoint, hear: Hear, on_dead: Callable[[int], None]) -> None:
        self._endpoint = endpoint
        self._hear = hear
        self._on_dead = on_dead
        self._listeners: list[Task[None]] = []
        self._sending = 0
        self._sent = Signal("messages of work sharing that are being sent")

    def open(self) -> None:
        self._listeners = [
            self._endpoint.spawn(self._listen(channel), ("sharing, channel", channel)) for channel in (SHARING, REPLIES)
        ]

    def send(self, dest: int, message: Message) -> None:
        """Sends in the background; messages to one rank arrive in order, answers among themselves."""
        self._sending += 1
        self._endpoint.spawn(self._send(dest, message), ("sharing: a message to rank", dest))

    async def flush(self) -> None:
        """Waits until everything sent has left."""
        await self._sent.until(lambda: self._sending == 0)

    def close(self) -> None:
        """Hears no more."""
        for listener in self._listeners:
            listener.cancel()

    async def _listen(self, channel: int) -> None:
        while True:
            message = await self._endpoint.recv_any(channel)
            self._hear(message.source, decode(message.data))

    async def _send(self, dest: int, message: Message) -> None:
        channel = REPLIES if isinstance(message, Reply | Receipt) else SHARING
        try:
            await self._endpoint.send(dest, channel, encode(message))
        except PeerFailedError:
            self._on_dead(dest)
        finally:
            self._sending -= 1
            self._sent.set()
