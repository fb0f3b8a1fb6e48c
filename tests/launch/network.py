"""Hosts made of this machine: network namespaces, each with a host name of its own, joined by a bridge. Needs root."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.launcher import LaunchResult, launch
from hvd_gossip.launch.mpirun import Flavour, find_mpirun
from hvd_gossip.launch.plan import Plan, make_plan
from tests.launch.conftest import python_of

REMOTE_SHELL = """
    #!/bin/sh
    # Like ssh: HOST COMMAND..., with nothing of the caller's environment but what the command says.
    while [ "${{1#-}}" != "$1" ]; do shift; done
    host=$1; shift
    exec env -i HOME="$HOME" PATH="$PATH" ip netns exec {prefix}${{host##*.}} unshare --uts sh -c "hostname node${{host##*.}}; $*"
"""
NOWHERE = 77
"""No host's address ends in this."""
COUNTER = itertools.count()
REFUSALS = ("not permitted", "Permission denied", "not supported", "Unknown device type")
"""What `ip` says where a container or its kernel has no bridges."""


@dataclass(frozen=True)
class Network:
    """Two hosts: their addresses end in 1 and 2, their names are node1 and node2.

    Attributes:
        shell: what reaches them, in the place of ssh.
    """

    subnet: str
    bridge: str
    mpirun: str
    folder: Path
    shell: Path

    @property
    def mpich(self) -> bool:
        return find_mpirun(self.mpirun).flavour is Flavour.MPICH

    def host(self, number: int, slots: int = 2) -> Host:
        return Host(f"{self.subnet}.{number}", slots)

    @property
    def hosts(self) -> list[Host]:
        return [self.host(1), self.host(2)]

    def message_args(self) -> list[str]:
        """How messages of MPI and of its launcher go between the hosts."""
        if self.mpich:
            return ["-iface", self.bridge]
        subnet = f"{self.subnet}.0/24"
        daemons, btl = ["--prtemca", "prte_if_include", subnet], ["--mca", "btl", "tcp,self,sm"]
        return [*daemons, "--mca", "pml", "ob1", *btl, "--mca", "btl_tcp_if_include", subnet]

    def mpi_args(self, shell: Path | None = None) -> list[str]:
        """These, and what reaches the hosts."""
        agent = str(shell or self.shell)
        reach = ["-launcher", "rsh", "-launcher-exec", agent] if self.mpich else ["--prtemca", "plm_ssh_agent", agent]
        return [*reach, *self.message_args()]

    def script(self, source: str) -> str:
        """The path of a file with this source."""
        path = self.folder / "script.py"
        path.write_text(textwrap.dedent(source))
        return str(path)

    def plan(
        self,
        arguments: Sequence[str],
        hosts: Sequence[Host],
        *more: str,
        np: int = 4,
        shell: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
    ) -> Plan:
        """A job of a script with its arguments; `more` are arguments of MPI's launcher."""
        return make_plan(
            np,
            [python_of(self.mpirun), *arguments],
            {"seed": 3, "threads_per_rank": 1},
            hosts,
            mpi_args=[*self.mpi_args(shell), *more],
            mpirun=self.mpirun,
            environ=os.environ | dict(env or {}),
            start_timeout=start_timeout,
        )

    def run(self, source: str, hosts: Sequence[Host], *more: str) -> LaunchResult:
        return launch(self.plan([self.script(source)], hosts, *more))


@contextmanager
def two_hosts(mpirun: str, folder: Path) -> Iterator[Network]:
    """Makes the network, and takes it away."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root, ip and unshare")
    number = (os.getpid() * 16 + next(COUNTER)) % 60000  # a deleted namespace's interfaces go away only a little later
    prefix, bridge, subnet = f"hvd{number}x", f"hvdbr{number}", f"10.{200 + number // 250 % 50}.{number % 250}"
    try:
        ip("link", "add", bridge, "type", "bridge")
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode().strip()
        if not any(reason in said for reason in REFUSALS):
            raise
        pytest.skip(f"this machine lets nobody make networks: {said}")
    try:
        ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for host in "12":
            join(prefix + host, bridge, f"{subnet}.{host}")
        shell = executable(folder / "rsh", textwrap.dedent(REMOTE_SHELL).lstrip().format(prefix=prefix))
        yield Network(subnet, bridge, mpirun, folder, shell)
    finally:
        for host in "12":
            subprocess.run(["ip", "netns", "del", prefix + host], check=False, capture_output=True)
        ip("link", "del", bridge)


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def join(namespace: str, bridge: str, address: str) -> None:
    """A host: a network namespace with one interface, on the bridge."""
    ip("netns", "add", namespace)
    ip("link", "add", namespace, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("link", "set", namespace, "master", bridge, "up")
    ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    for interface in ("eth0", "lo"):
        ip("-n", namespace, "link", "set", interface, "up")
