"""The launcher's side of its agents: how each rank ended, in the order in which they did."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import psutil

LOOPBACK = "127.0.0.1"
BACKLOG = 4096
"""Agents that may connect at the same instant."""
LINE_BYTES = 1 << 20
"""Longest message of an agent; a longer one ends its connection."""

T = TypeVar("T")
_logger = logging.getLogger("hvd_gossip.launch")


@dataclass(frozen=True)
class RankEnd:
    """How a rank's command ended.

    Attributes:
        rank, host, pid: which one it was, and where.
        returncode: its exit code, or the negative number of the signal that ended it.
        told: it was signalled by the launcher or by MPI, and ended of it: a consequence, no cause.
        seconds: how long it ran.
        tail: the last lines of its output, stdout and stderr together.
    """

    rank: int
    host: str
    pid: int
    returncode: int
    told: bool
    seconds: float
    tail: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return self.returncode != 0

    @property
    def exit_code(self) -> int:
        """As shells have it: 128 + the signal's number for a command that a signal ended."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode

    def cause(self) -> str:
        """ "exit code 3", "signal 9 (SIGKILL)"."""
        if self.returncode >= 0:
            return f"exit code {self.returncode}"
        with contextlib.suppress(ValueError):
            return f"signal {-self.returncode} ({signal.Signals(-self.returncode).name})"
        return f"signal {-self.returncode}"


def first_failure(ends: tuple[RankEnd, ...]) -> RankEnd | None:
    """The failed rank that ended first, of its own accord if there is one."""
    failed = [end for end in ends if end.failed]
    return next((end for end in failed if not end.told), failed[0] if failed else None)


class ReportServer:
    """Listens to the agents while it is entered (a context manager); everything happens in a thread of its own.

    Args:
        remote: whether agents may be on other hosts; otherwise only this host can connect.
        on_failure: called, from that thread, with each `RankEnd` that failed of its own accord.
    """

    def __init__(self, remote: bool, on_failure: Callable[[RankEnd], None]) -> None:
        self.token = secrets.token_hex(16)
        self._on_failure = on_failure
        self._ends: list[RankEnd] = []
        self._agents: set[asyncio.StreamWriter] = set()
        self._gone = threading.Condition()
        self._socket = _listen_everywhere() if remote else socket.create_server((LOOPBACK, 0), backlog=BACKLOG)
        self._hosts = _own_addresses() if remote else [LOOPBACK]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="agents", daemon=True)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where agents reach this server."""
        port: int = self._socket.getsockname()[1]
        return tuple((host, port) for host in self._hosts)

    @property
    def ends(self) -> tuple[RankEnd, ...]:
        """The ranks that have ended, in this order."""
        return tuple(self._ends)

    @property
    def connected(self) -> int:
        """How many agents are there."""
        return len(self._agents)

    def signal(self, number: int) -> None:
        """Has the agents deliver a signal to their commands."""
        message = json.dumps({"signal": number}).encode() + b"\n"
        self._loop.call_soon_threadsafe(self._to_all, lambda writer: writer.write(message))

    def hang_up(self) -> None:
        """Tells the agents that the launcher is done: what still runs ends within their `orphan_grace`."""
        self._loop.call_soon_threadsafe(self._to_all, asyncio.StreamWriter.write_eof)

    def wait_gone(self, timeout: float) -> bool:
        """Waits at most `timeout` seconds until no agent is connected; whether that is so."""
        with self._gone:
            return self._gone.wait_for(lambda: not self._agents, timeout)

    def __enter__(self) -> ReportServer:
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

    def _to_all(self, action: Callable[[asyncio.StreamWriter], object]) -> None:
        for writer in list(self._agents):
            action(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = json.loads(await reader.readline())
            if hmac.compare_digest(hello["token"], self.token):
                writer.write(json.dumps({"welcome": self.token}).encode() + b"\n")
                await self._listen(reader, writer, hello)
        except (OSError, ValueError, LookupError, TypeError) as error:  # not one of ours, or it died while it spoke
            _logger.debug("connection from %s: %r", writer.get_extra_info("peername"), error)
        finally:
            writer.close()

    async def _listen(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Mapping[str, Any]
    ) -> None:
        self._agents.add(writer)
        try:
            async for line in reader:
                self._ended(hello, json.loads(line))
        finally:
            with self._gone:
                self._agents.remove(writer)
                self._gone.notify_all()

    def _ended(self, hello: Mapping[str, Any], message: Mapping[str, Any]) -> None:
        end = RankEnd(
            rank=hello["rank"],
            host=hello["host"],
            pid=hello["pid"],
            returncode=message["returncode"],
            told=message["told"],
            seconds=message["seconds"],
            tail=tuple(message["tail"]),
        )
        self._ends.append(end)
        if end.failed and not end.told:
            self._on_failure(end)

    async def _close(self) -> None:
        self._server.close()
        self._to_all(asyncio.StreamWriter.close)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(tasks, timeout=1.0) if tasks else None


def _own_addresses() -> list[str]:
    """This host's addresses that others may reach, IPv4 first; its loopback address when there is no other."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    known = [address for name, addresses in psutil.net_if_addrs().items() if name in up for address in addresses]
    families = (socket.AF_INET, socket.AF_INET6) if socket.has_dualstack_ipv6() else (socket.AF_INET,)
    ordered = [address.address for family in families for address in known if address.family == family]
    outside = [text for text in ordered if "%" not in text and not ipaddress.ip_address(text).is_loopback]
    return outside or [LOOPBACK]


def _listen_everywhere() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    return socket.create_server(("", 0), backlog=BACKLOG)
