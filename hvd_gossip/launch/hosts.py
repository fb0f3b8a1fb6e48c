"""Hosts and their slots, in Horovod's two notations."""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil

from hvd_gossip.errors import ConfigError

_HOST = re.compile(r"(?P<name>[\w.-]+)(:(?P<slots>\d+))?")
_LINE = re.compile(r"(?P<name>[\w.-]+)((:|\s+slots\s*=\s*)(?P<slots>\d+))?")


@dataclass(frozen=True)
class Host:
    """A machine and how many ranks may run there."""

    name: str
    slots: int = 1

    @property
    def local(self) -> bool:
        """Whether it is the machine that asks."""
        own = socket.gethostname()
        return self.name in ("localhost", "127.0.0.1", own, own.partition(".")[0])


def parse_hosts(text: str) -> tuple[Host, ...]:
    """Reads "host:slots,host:slots"; a host without a number has one slot.

    Raises:
        ConfigError: it is not of this form, or names a host twice.
    """
    form = "expected HOST:SLOTS,HOST:SLOTS..., SLOTS >= 1"
    return _checked((_host(_HOST, part.strip(), f"hosts {text!r}: {form}") for part in text.split(",")), text)


def parse_hostfile(path: str) -> tuple[Host, ...]:
    """Reads a file of lines "host slots=N", "host:N" or "host"; # starts a comment.

    Raises:
        ConfigError: the file cannot be read, has another kind of line, names a host twice or none at all.
    """
    try:
        with open(path) as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except OSError as error:
        raise ConfigError(f"hostfile {path}: {error.strerror}") from error
    form = 'expected lines of "HOST slots=N", N >= 1'
    hosts = (
        _host(_LINE, line, f"hostfile {path}, line {i}: {form}, found {line!r}")
        for i, line in enumerate(lines, 1)
        if line
    )
    return _checked(hosts, path)


def total_slots(hosts: Iterable[Host]) -> int:
    return sum(host.slots for host in hosts)


def placement(np: int, hosts: Sequence[Host]) -> list[int]:
    """The index of each rank's host: slots are filled host after host, and then again when there are more ranks.

    Without hosts, all ranks count as being on one.
    """
    slots = [index for index, host in enumerate(hosts) for _ in range(host.slots)] or [0]
    return sorted(slots[rank % len(slots)] for rank in range(np))


def cores() -> int:
    """Processor cores that this process may use; hardware threads of one core count once."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def _host(pattern: re.Pattern[str], text: str, error: str) -> Host:
    match = pattern.fullmatch(text)
    if match is None or match["slots"] == "0":
        raise ConfigError(error)
    return Host(match["name"], int(match["slots"] or 1))


def _checked(hosts: Iterable[Host], source: str) -> tuple[Host, ...]:
    known = tuple(hosts)
    twice = [name for name, times in Counter(host.name for host in known).items() if times > 1]
    if twice or not known:
        raise ConfigError(f"hosts {source!r}: " + (f"{', '.join(twice)} named twice" if twice else "no host at all"))
    return known
