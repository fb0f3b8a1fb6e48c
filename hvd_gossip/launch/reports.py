"""The launcher's side of its agents: how each rank ended, in the order in which they did."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hvd_gossip.launch.server import TokenServer


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


class ReportServer(TokenServer):
    """The launcher's ear for its agents, while it is entered (a context manager).

    Args:
        remote: whether agents may be on other hosts; otherwise only this host can connect.
        on_failure: called, from the server's thread, with each `RankEnd` that failed of its own accord.
        interfaces: network interfaces on which agents are told to call; none: all.

    Attributes:
        seen: the ranks whose agents have called, and their hosts.
    """

    def __init__(self, remote: bool, on_failure: Callable[[RankEnd], None], interfaces: Sequence[str] = ()) -> None:
        super().__init__(remote, interfaces, "agents")
        self.seen: dict[int, str] = {}
        self._on_failure = on_failure
        self._ends: list[RankEnd] = []
        self._last_signal = b""

    @property
    def ends(self) -> tuple[RankEnd, ...]:
        """The ranks that have ended, in this order."""
        return tuple(self._ends)

    def signal(self, number: int) -> None:
        """Has the agents deliver a signal to their commands, soon; those that call later, as soon as they do."""
        self._loop.call_soon_threadsafe(self._signal, json.dumps({"signal": number}).encode() + b"\n")

    def hang_up(self) -> None:
        """Tells the agents that the launcher is done: what still runs ends within their `orphan_grace`."""
        self.to_all(asyncio.StreamWriter.write_eof)

    async def attend(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Mapping[str, Any]
    ) -> None:
        self.seen[hello["rank"]] = hello["host"]
        if self._last_signal:
            writer.write(self._last_signal)
        async for line in reader:
            self._ended(hello, json.loads(line))

    def _signal(self, message: bytes) -> None:
        """In the server's thread, so that an agent that is calling just now is told once."""
        self._last_signal = message
        self._do_to_all(lambda writer: writer.write(message))

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
