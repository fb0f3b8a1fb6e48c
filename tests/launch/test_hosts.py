"""Hosts: both notations, who gets which rank, and errors that say what was expected."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from hvd_gossip.errors import ConfigError
from hvd_gossip.launch.hosts import Host, cores, parse_hostfile, parse_hosts, placement, total_slots


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a", [Host("a", 1)]),
        ("a:4", [Host("a", 4)]),
        ("node-1.cluster:2,10.0.0.7:16", [Host("node-1.cluster", 2), Host("10.0.0.7", 16)]),
        (" a:1 , b:2 ", [Host("a", 1), Host("b", 2)]),
    ],
)
def test_hosts_with_their_slots(text: str, hosts: list[Host]) -> None:
    assert list(parse_hosts(text)) == hosts
    assert total_slots(hosts) == sum(host.slots for host in hosts)


@pytest.mark.parametrize("text", ["", "a:", "a:0", "a:-1", "a:two", "a:1,,b:2", "a b:2", "a:1:2", "a;rm:1"])
def test_anything_else_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected HOST:SLOTS,HOST:SLOTS"):
        parse_hosts(text)


def test_a_host_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="a named twice"):
        parse_hosts("a:1,b:1,a:2")


def test_hostfile_in_all_its_forms(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# the rack\na slots=4\n\nb slots = 2  # half of it\nc:3\nd\n")
    assert parse_hostfile(str(path)) == (Host("a", 4), Host("b", 2), Host("c", 3), Host("d", 1))


@pytest.mark.parametrize("line", ["a slots=", "a slots=0", "a cores=4", "a 4", "a slots=2 max_slots=4"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "hosts"
    path.write_text(f"first slots=1\n{line}\n")
    with pytest.raises(ConfigError, match=rf"line 2: expected lines of .*found '{line}'"):
        parse_hostfile(str(path))


def test_a_hostfile_that_says_nothing_or_is_not_there(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# nobody\n")
    with pytest.raises(ConfigError, match="no host at all"):
        parse_hostfile(str(empty))
    with pytest.raises(ConfigError, match="No such file"):
        parse_hostfile(str(tmp_path / "missing"))


def test_ranks_fill_slots_host_after_host() -> None:
    hosts = [Host("a", 2), Host("b", 1)]
    assert placement(2, hosts) == [0, 0]
    assert placement(3, hosts) == [0, 0, 1]
    assert placement(5, hosts) == [0, 0, 0, 0, 1]  # the fourth and fifth rank begin anew
    assert placement(3, []) == [0, 0, 0]


def test_which_hosts_are_this_one() -> None:
    assert Host("localhost", 2).local
    assert Host(socket.gethostname()).local
    assert not Host("another.example").local


def test_cores_are_at_least_one_and_no_more_than_this_process_may_use() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))
