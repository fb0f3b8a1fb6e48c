"""A server for processes that the launcher has started: it listens in a thread of its own, and knows them by a token."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import secrets
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import psutil

LOOPBACK = "127.0.0.1"
BACKLOG = 4096
"""Clients that may connect at the same instant."""
LINE_BYTES = 1 << 20
"""Longest line of a client; a longer one ends its connection."""

T = TypeVar("T")
S = TypeVar("S", bound="TokenServer")
_logger = logging.getLogger("hvd_gossip.launch")


class TokenServer(ABC):
    """Listens while it is entered (a context manager).

    A client begins with a line of JSON that holds the token, and is answered {"welcome": token}: each knows the other.

    Args:
        remote: whether clients may be on other hosts; otherwise only this host can connect.
        interfaces: names of the network interfaces whose addresses clients are told; none: all.
        name: of the thread.
    """

    def __init__(self, remote: bool, interfaces: Sequence[str], name: str) -> None:
        self.token = secrets.token_hex(16)
        self._socket = _listen_everywhere() if remote else socket.create_server((LOOPBACK, 0), backlog=BACKLOG)
        self._hosts = own_addresses(interfaces) if remote else [LOOPBACK]
        self._clients: set[asyncio.StreamWriter] = set()
        self._gone = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where clients reach this server."""
        port: int = self._socket.getsockname()[1]
        return tuple((host, port) for host in self._hosts)

    @abstractmethod
    async def attend(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Mapping[str, Any]
    ) -> None:
        """Talks with a client that has said `hello` and was welcomed."""

    @property
    def connected(self) -> int:
        """How many clients are there."""
        return len(self._clients)

    def wait_gone(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds until no client is connected; whether that is so."""
        with self._gone:
            return self._gone.wait_for(lambda: not self._clients, timeout)

    def to_all(self, action: Callable[[asyncio.StreamWriter], object]) -> None:
        """Does something to every connection, soon."""
        self._loop.call_soon_threadsafe(self._do_to_all, action)

    def __enter__(self: S) -> S:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, sock=self._socket, limit=LINE_BYTES))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = json.loads(await reader.readline())
            if hmac.compare_digest(hello["token"], self.token):
                await self._host(reader, writer, hello)
        except (
            OSError,
            EOFError,
            ValueError,
            LookupError,
            TypeError,
        ) as error:  # not one of ours, or it died meanwhile
            _logger.debug("connection from %s: %r", writer.get_extra_info("peername"), error)
        finally:
            writer.close()

    async def _host(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Mapping[str, Any]) -> None:
        self._clients.add(writer)  # before the client knows: from its welcome on it is waited for
        try:
            writer.write(json.dumps({"welcome": self.token}).encode() + b"\n")
            await self.attend(reader, writer, hello)
        finally:
            with self._gone:
                self._clients.remove(writer)
                self._gone.notify_all()

    def _do_to_all(self, action: Callable[[asyncio.StreamWriter], object]) -> None:
        for writer in list(self._clients):
            action(writer)

    async def _close(self) -> None:
        self._server.close()
        self._do_to_all(asyncio.StreamWriter.close)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(tasks, timeout=1.0) if tasks else None


def own_addresses(interfaces: Sequence[str] = ()) -> list[str]:
    """This host's addresses that others may reach, IPv4 first; its loopback address when there is no other.

    Args:
        interfaces: of these network interfaces only; none: of all that are up.
    """
    up = interfaces or [name for name, stats in psutil.net_if_stats().items() if stats.isup]
    known = [address for name, addresses in psutil.net_if_addrs().items() if name in up for address in addresses]
    families = (socket.AF_INET, socket.AF_INET6) if socket.has_dualstack_ipv6() else (socket.AF_INET,)
    ordered = [address.address for family in families for address in known if address.family == family]
    outside = [text for text in ordered if "%" not in text and not ipaddress.ip_address(text).is_loopback]
    return outside or [LOOPBACK]


def _listen_everywhere() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("", 0), backlog=BACKLOG)
