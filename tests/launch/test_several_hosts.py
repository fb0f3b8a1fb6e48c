"""Launches on two hosts: network namespaces of this machine, each with a host name of its own, joined by a bridge.

Needs root, for the namespaces.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.launcher import LaunchResult, launch
from hvd_gossip.launch.mpirun import Flavour, find_mpirun
from hvd_gossip.launch.plan import make_plan
from tests.launch.waiting import gone, marked, number_in, until

REMOTE_SHELL = """
    #!/bin/sh
    # Like ssh: HOST COMMAND..., with nothing of the caller's environment but what the command says.
    while [ "${{1#-}}" != "$1" ]; do shift; done
    host=$1; shift
    exec env -i HOME="$HOME" PATH="$PATH" ip netns exec {prefix}${{host##*.}} unshare --uts sh -c "hostname node${{host##*.}}; $*"
"""
SCRIPT = """
    import json, os, socket, sys, time
    from pathlib import Path
    import horovod
    rank = os.environ.get("PMIX_RANK") or os.environ["PMI_RANK"]
    folder = Path(sys.argv[1])
    seen = [socket.gethostname(), horovod.__version__[:6], os.environ["HVD_GOSSIP_SEED"], os.environ["OWN"]]
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    (folder / f"{rank}.pid").write_text(f"{os.getpid()}\\n")
    if sys.argv[2] == "fail" and rank == "3":
        print("last words")
        sys.exit(5)
    if sys.argv[2] != "end":
        time.sleep(600)
"""

COUNTER = itertools.count()


@dataclass(frozen=True)
class Network:
    """Two hosts: their addresses end in 1 and 2, their names are node1 and node2."""

    subnet: str
    bridge: str
    mpirun: str
    folder: Path

    @property
    def hosts(self) -> list[Host]:
        return [Host(f"{self.subnet}.{number}", 2) for number in (1, 2)]

    def mpi_args(self, shell: Path) -> list[str]:
        if find_mpirun(self.mpirun).flavour is Flavour.MPICH:
            return ["-launcher", "rsh", "-launcher-exec", str(shell), "-iface", self.bridge]
        return ["--prtemca", "plm_ssh_agent", str(shell), "--prtemca", "prte_if_include", f"{self.subnet}.0/24"]

    def arguments(self, what: str) -> list[str]:
        return [sys.executable, str(self.folder / "script.py"), str(self.folder), what]

    def launch(self, what: str) -> LaunchResult:
        plan = make_plan(
            4,
            self.arguments(what),
            {"seed": 3},
            self.hosts,
            mpi_args=self.mpi_args(self.folder / "rsh"),
            mpirun=self.mpirun,
            environ=os.environ | {"OWN": "two words"},
        )
        return launch(plan)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def network(mpirun: str, tmp_path: Path) -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root, ip and unshare")
    number = (os.getpid() * 16 + next(COUNTER)) % 60000  # a deleted namespace's interfaces go away only a little later
    prefix, bridge, subnet = f"hvd{number}x", f"hvdbr{number}", f"10.{200 + number // 250 % 50}.{number % 250}"
    try:
        ip("link", "add", bridge, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine lets nobody make networks: {error.stderr.decode().strip()}")
    try:
        ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for host in "12":
            join(prefix + host, bridge, f"{subnet}.{host}")
        (tmp_path / "rsh").write_text(textwrap.dedent(REMOTE_SHELL).lstrip().format(prefix=prefix))
        (tmp_path / "rsh").chmod(0o755)
        (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
        yield Network(subnet, bridge, mpirun, tmp_path)
    finally:
        for host in "12":
            subprocess.run(["ip", "netns", "del", prefix + host], check=False, capture_output=True)
        ip("link", "del", bridge)


def join(namespace: str, bridge: str, address: str) -> None:
    """A host: a network namespace with one interface, on the bridge."""
    ip("netns", "add", namespace)
    ip("link", "add", namespace, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("link", "set", namespace, "master", bridge, "up")
    ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
    for interface in ("eth0", "lo"):
        ip("-n", namespace, "link", "set", interface, "up")


def test_ranks_and_their_environment_reach_both_hosts(network: Network) -> None:
    done = network.launch("end")
    assert done.exit_code == 0
    seen = [json.loads((network.folder / f"{rank}.json").read_text()) for rank in range(4)]
    assert seen == [[f"node{1 + rank // 2}", "0.28.1", "3", "two words"] for rank in range(4)]
    assert sorted((end.rank, end.host) for end in done.ends) == [(rank, f"node{1 + rank // 2}") for rank in range(4)]


def test_a_failure_on_another_host_is_named_and_ends_the_job(network: Network) -> None:
    done = network.launch("fail")
    assert done.exit_code == 5
    first = done.first_failure
    assert first is not None
    assert (first.rank, first.host, first.returncode, first.tail) == (3, "node2", 5, ("last words",))
    assert all(gone(number_in(path)) for path in network.folder.glob("*.pid"))


def test_ranks_on_other_hosts_do_not_outlive_a_killed_launcher(network: Network) -> None:
    hosts = ",".join(f"{host.name}:{host.slots}" for host in network.hosts)
    options = ["-np", "4", "--seed", "3", "--mpirun", network.mpirun, "-H", hosts]
    options += [f"--mpi-args={' '.join(network.mpi_args(network.folder / 'rsh'))}"]
    command = [sys.executable, "-m", "hvd_gossip.launch.cli", *options, *network.arguments("wait")]
    with subprocess.Popen(command, env=os.environ | {"OWN": str(network.folder)}) as launcher:
        ranks = [number_in(network.folder / f"{rank}.pid") for rank in range(4)]
        launcher.send_signal(signal.SIGKILL)
    until(lambda: all(map(gone, ranks)))
    until(lambda: not marked("OWN", str(network.folder)))  # MPI's launcher, which ends when it sees that they ended
