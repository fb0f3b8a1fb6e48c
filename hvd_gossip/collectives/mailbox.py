"""Control messages on their way: the only receiver of the CONTROL channel, and a count of what is not sent yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hvd_gossip.errors import PeerFailedError, TransportError
from hvd_gossip.tasks import Future, Signal, Task
from hvd_gossip.transport.endpoint import CONTROL, Endpoint, Message


class Mailbox:
    """Sends and receives control messages.

    Args:
        on_message: takes each message as it comes.
        on_lost: called as `on_lost(rank, error)` when a message to a rank cannot be delivered.

    Attributes:
        outstanding: messages that are being sent.
        sent: set whenever one has been.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_message: Callable[[Message], None],
        on_lost: Callable[[int, BaseException], None],
    ) -> None:
        self._endpoint = endpoint
        self._on_message = on_message
        self._on_lost = on_lost
        self._task: Task[None] | None = None
        self.outstanding = 0
        self.sent = Signal("control messages to be sent")

    def start(self) -> None:
        """Begins to receive."""
        self._task = self._endpoint.spawn(self._receive(), "control messages")

    def stop(self) -> None:
        """Receives no more."""
        if self._task is not None:
            self._task.cancel()

    def send(self, dest: int, data: bytes) -> None:
        """Sends a message after those sent to the same rank before."""
        try:
            future = self._endpoint.send(dest, CONTROL, data)
        except TransportError as error:
            self._on_lost(dest, error)
            return
        if not future.done() or future.error() is not None:
            self.outstanding += 1
            future.add_callback(partial(self._finish, dest))

    def _finish(self, dest: int, future: Future[None]) -> None:
        self.outstanding -= 1
        self.sent.set()
        error = future.error()
        if error is not None:
            self._on_lost(dest, error)

    async def _receive(self) -> None:
        while True:
            try:
                message = await self._endpoint.recv_any(CONTROL)
            except PeerFailedError as error:
                self._on_lost(error.peer, error)
            else:
                self._on_message(message)
