"""What the launcher hears from agents: who may speak, in which order, and that strangers do no harm."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from hvd_gossip.launch import server as server_module
from hvd_gossip.launch.reports import RankEnd, ReportServer, first_failure
from tests.launch.waiting import until


def end(rank: int, returncode: int, told: bool = False) -> RankEnd:
    return RankEnd(rank, "host", 100 + rank, returncode, told, 1.5, ("last", "words"))


class Peer:
    """An agent as the server sees it."""

    def __init__(self, server: ReportServer, **hello: Any) -> None:
        self.socket = socket.create_connection(server.addresses[0])
        self.lines = self.socket.makefile("rb")
        self.say({"token": server.token, "rank": 0, "host": "host", "pid": 100} | hello)
        assert self.hears() == {"welcome": server.token}

    def say(self, message: object) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def ends(self, returncode: int, told: bool = False) -> None:
        self.say({"returncode": returncode, "told": told, "seconds": 1.5, "tail": ["last", "words"]})
        self.close()

    def hears(self) -> Any:
        line = self.lines.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@contextmanager
def serving(remote: bool = False) -> Iterator[tuple[ReportServer, queue.SimpleQueue[RankEnd]]]:
    failures: queue.SimpleQueue[RankEnd] = queue.SimpleQueue()
    with ReportServer(remote, failures.put) as server:
        yield server, failures


def test_ends_arrive_in_their_order() -> None:
    with serving() as (server, failures):
        peers = [Peer(server, rank=rank, pid=100 + rank) for rank in range(3)]
        peers[1].ends(3)
        assert failures.get(timeout=10) == end(1, 3)
        peers[2].ends(-9)
        assert failures.get(timeout=10) == end(2, -9)
        peers[0].ends(0)
        assert server.wait_gone(10)
        assert server.ends == (end(1, 3), end(2, -9), end(0, 0))
        assert failures.empty()


def test_one_that_was_told_to_end_is_no_failure_of_its_own() -> None:
    with serving() as (server, failures):
        Peer(server).ends(-15, told=True)
        assert server.wait_gone(10)
        until(lambda: len(server.ends) == 1)
        assert failures.empty()
        assert first_failure(server.ends) == end(0, -15, told=True)


def test_the_first_failure_of_its_own_accord_counts() -> None:
    assert first_failure((end(0, 0), end(1, -15, told=True), end(2, 1), end(3, 2))) == end(2, 1)
    assert first_failure((end(0, -15, told=True), end(1, 0))) == end(0, -15, told=True)
    assert first_failure((end(0, 0),)) is None


@pytest.mark.parametrize(
    ("returncode", "cause", "exit_code"),
    [
        (3, "exit code 3", 3),
        (-9, "signal 9 (SIGKILL)", 137),
        (-11, "signal 11 (SIGSEGV)", 139),
        (-40, "signal 40", 168),
    ],
)
def test_causes_in_words_and_in_shells_numbers(returncode: int, cause: str, exit_code: int) -> None:
    assert end(0, returncode).cause() == cause
    assert end(0, returncode).exit_code == exit_code


def test_signals_reach_every_agent() -> None:
    with serving() as (server, _):
        peers = [Peer(server, rank=rank) for rank in range(2)]
        wait_for(server, 2)
        server.signal(2)
        assert [peer.hears() for peer in peers] == [{"signal": 2}] * 2
        server.hang_up()
        assert [peer.hears() for peer in peers] == [None, None]
        assert not server.wait_gone(0.05)
        for peer in peers:
            peer.close()
        assert server.wait_gone(10)


def test_an_agent_that_calls_later_is_told_the_last_signal_once() -> None:
    with serving() as (server, _):
        server.signal(2)
        server.signal(9)
        peer = Peer(server)
        server.hang_up()
        assert [peer.hears(), peer.hears()] == [{"signal": 9}, None]
        peer.close()


def test_an_agent_is_waited_for_from_its_welcome_on(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[int] = []
    write = asyncio.StreamWriter.write

    def counting(writer: asyncio.StreamWriter, data: bytes) -> None:
        connected.append(server.connected)
        write(writer, data)

    with serving() as (server, _):
        monkeypatch.setattr(asyncio.StreamWriter, "write", counting)
        Peer(server).close()
        assert connected == [1]


def test_an_agent_that_vanishes_is_not_waited_for() -> None:
    with serving() as (server, _):
        peer = Peer(server)
        wait_for(server, 1)
        peer.close()
        assert server.wait_gone(10)
        assert server.ends == ()


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"token": "guess", "rank": 0}\n',
        b"[]\n",
        b'{"rank": 0}\n',
        b'{"token": 7}\n',
        b"\xff\n",
        b"",
    ],
)
def test_strangers_are_not_listened_to(hello: bytes) -> None:
    with serving() as (server, failures):
        with socket.create_connection(server.addresses[0]) as stranger:
            stranger.sendall(hello + b'{"returncode": 1, "told": false, "seconds": 0, "tail": []}\n')
            stranger.shutdown(socket.SHUT_WR)
            stranger.settimeout(10)
            assert stranger.recv(100) == b""
        Peer(server, rank=4, pid=104).ends(1)
        assert failures.get(timeout=10) == end(4, 1)
        assert server.ends == (end(4, 1),)


def test_a_message_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LINE_BYTES", 1000)
    with serving() as (server, _):
        peer = Peer(server)
        wait_for(server, 1)
        peer.socket.sendall(b"x" * 5000)
        assert server.wait_gone(10)
        peer.close()


def test_only_jobs_on_several_hosts_are_reachable_from_others() -> None:
    with serving() as (server, _):
        assert [host for host, _ in server.addresses] == ["127.0.0.1"]
    with serving(remote=True) as (server, failures):
        assert server.addresses
        Peer(server).ends(1)
        assert failures.get(timeout=10) == end(0, 1)


def test_agents_are_told_the_addresses_of_the_interfaces_that_may_be_used() -> None:
    assert server_module.own_addresses(["lo"]) == ["127.0.0.1"]
    for name, addresses in psutil.net_if_addrs().items():
        own = {address.address for address in addresses}
        assert set(server_module.own_addresses([name])) <= {*own, "127.0.0.1"}


def test_who_has_called_is_remembered() -> None:
    with serving() as (server, _):
        assert server.seen == {}
        Peer(server, rank=4).close()
        Peer(server, rank=2).ends(0)
        until(lambda: set(server.seen) == {2, 4})
        assert server.wait_gone(10)


def test_leaving_closes_what_is_still_open() -> None:
    with serving() as (server, _):
        peer = Peer(server)
        wait_for(server, 1)
        address = server.addresses[0]
    assert peer.hears() is None
    peer.close()
    with pytest.raises(ConnectionError):
        socket.create_connection(address)


def wait_for(server: ReportServer, agents: int) -> None:
    """Until so many agents are connected."""
    until(lambda: server.connected >= agents)
