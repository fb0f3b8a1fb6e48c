"""The agent's connection: it finds the launcher among addresses, and is not fooled by who else listens there."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from hvd_gossip.launch.agent import channel
from hvd_gossip.launch.agent.channel import Channel
from hvd_gossip.launch.reports import ReportServer
from tests.launch.waiting import until

Address = tuple[str, int]
CLOSED = ("127.0.0.1", 1)


class Agent:
    """A channel that notes what it is told."""

    def __init__(self, token: str, *addresses: Address) -> None:
        self.signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.lost = threading.Event()
        hello = {"token": token, "rank": 3, "host": "here", "pid": 42}
        self.channel = Channel(addresses, hello, self.signals.put, self.lost.set)
        self.channel.start()

    def end(self, returncode: int) -> bool:
        return self.channel.tell({"returncode": returncode, "told": False, "seconds": 1.0, "tail": []})

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()


@contextmanager
def launcher() -> Iterator[ReportServer]:
    with ReportServer(remote=False, on_failure=lambda end: None) as server:
        yield server


@contextmanager
def stranger(answer: Callable[[socket.socket], object]) -> Iterator[Address]:
    """Something else that listens, and what it does with whoever connects."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):  # closed at the end of the test
                while True:
                    connections.append(server.accept()[0])
                    answer(connections[-1])

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in connections:
        connection.close()


def test_signals_in_and_the_end_out() -> None:
    with launcher() as server, Agent(server.token, *server.addresses) as agent:
        until(lambda: server.connected == 1)
        server.signal(10)
        server.signal(12)
        assert [agent.signals.get(timeout=10), agent.signals.get(timeout=10)] == [10, 12]
        assert agent.end(7)
        until(lambda: len(server.ends) == 1)
        assert (server.ends[0].rank, server.ends[0].host, server.ends[0].returncode) == (3, "here", 7)
        assert not agent.lost.is_set()


def test_a_launcher_that_hangs_up_still_hears_the_end() -> None:
    with launcher() as server, Agent(server.token, *server.addresses) as agent:
        until(lambda: server.connected == 1)
        server.hang_up()
        assert agent.lost.wait(10)
        assert agent.end(7)
        until(lambda: len(server.ends) == 1)


def test_an_end_right_after_the_start_is_not_lost() -> None:
    with launcher() as server, Agent(server.token, CLOSED, *server.addresses) as agent:
        assert agent.end(0)
        until(lambda: len(server.ends) == 1)


@pytest.mark.parametrize(
    "answer",
    [
        lambda connection: connection.shutdown(socket.SHUT_RDWR),
        lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n"),
        lambda connection: connection.sendall(b'{"welcome": "guess"}\n'),
        lambda connection: connection.sendall(connection.recv(1000)),
        lambda connection: connection.sendall(b"x" * 5000),
        lambda connection: None,
    ],
    ids=["closes", "mail", "wrong", "echo", "endless", "silent"],
)
def test_strangers_are_passed_over(answer: Callable[[socket.socket], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "WELCOME_S", 5.0)  # only "silent" waits for it; the launcher too may be slow
    with launcher() as server, stranger(answer) as address, Agent(server.token, address, *server.addresses) as agent:
        until(lambda: server.connected == 1)
        assert not agent.lost.is_set()
        assert agent.end(0)


def test_without_the_launcher_nothing_is_said_and_nobody_is_lost() -> None:
    for addresses in ([], [CLOSED, CLOSED]):
        with Agent("token", *addresses) as agent:
            assert not agent.end(1)
        assert not agent.lost.is_set()


def test_a_launcher_that_dies_is_noticed() -> None:
    with launcher() as server:
        agent = Agent(server.token, *server.addresses)
        until(lambda: server.connected == 1)
    with agent:
        assert agent.lost.wait(10)
