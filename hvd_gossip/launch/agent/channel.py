"""The connection to the launcher: signals come in, the command's end goes out. Both are lines of JSON."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

CONNECT_S, WELCOME_S = 5.0, 30.0
"""How long each of the launcher's addresses may take to be reached, and then to answer."""
LINE_BYTES = 1000
"""Longest welcome that is listened to."""


class Channel(threading.Thread):
    """Connects in the background, so that the command does not wait for it.

    Args:
        addresses: where the launcher may be reached, tried in this order.
        hello: first message: who this is.
        on_signal: called with the number of each signal that the launcher wants delivered.
        on_lost: called when a connection ends that has been there.
    """

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        hello: Mapping[str, object],
        on_signal: Callable[[int], None],
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(name="channel", daemon=True)
        self._addresses, self._hello = addresses, hello
        self._on_signal, self._on_lost = on_signal, on_lost
        self._socket: socket.socket | None = None
        self._tried = threading.Event()

    def run(self) -> None:
        self._socket = connect(self._addresses, self._hello)
        self._tried.set()
        if self._socket is not None:
            self._listen(self._socket)
            self._on_lost()

    def tell(self, message: Mapping[str, object]) -> bool:
        """Sends a message, waiting for the connection when it is still being made; whether it went out."""
        self._tried.wait((CONNECT_S + WELCOME_S) * len(self._addresses))
        return self._socket is not None and _send(self._socket, message)

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._socket is not None:
            with suppress(OSError):  # the launcher may have ended it first
                self._socket.shutdown(socket.SHUT_RDWR)
            self.join()
            self._socket.close()

    def _listen(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            try:
                for line in lines:
                    self._on_signal(json.loads(line)["signal"])
            except OSError:  # a reset is an end like any other
                return


def connect(addresses: Sequence[tuple[str, int]], hello: Mapping[str, object]) -> socket.socket | None:
    """A connection to the launcher, which was told `hello` (with its "token") and has answered; None: it was not reached."""
    for address in addresses:
        try:
            connection = socket.create_connection(address, timeout=CONNECT_S)
        except OSError:  # one of several addresses of the launcher's host; if none works, the caller says so
            continue
        if _welcomed(connection, hello):
            connection.settimeout(None)
            return connection
        connection.close()
    return None


def _welcomed(connection: socket.socket, hello: Mapping[str, object]) -> bool:
    """Whether it is the launcher: seen from here, its address may be another machine's, or this one's own."""
    try:
        connection.settimeout(WELCOME_S)
        answer = _line(connection) if _send(connection, hello) else b""
        return bool(json.loads(answer or b"null") == {"welcome": hello["token"]})
    except (OSError, ValueError):
        return False


def _line(connection: socket.socket) -> bytes:
    """One line, and not a byte of what follows; short if the other side says no more."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LINE_BYTES and (byte := connection.recv(1)):
        line += byte
    return line


def _send(connection: socket.socket, message: Mapping[str, object]) -> bool:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return False
    return True
