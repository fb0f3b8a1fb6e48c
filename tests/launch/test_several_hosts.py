"""Launches on two hosts: network namespaces of this machine, each with a host name of its own, joined by a bridge.

Needs root, for the namespaces.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hvd_gossip
from hvd_gossip.launch.describe import describe_failure
from hvd_gossip.launch.launcher import LaunchResult, launch
from hvd_gossip.launch.plan import make_plan
from hvd_gossip.launch.supervise import Patience
from tests.launch.conftest import python_of
from tests.launch.network import NOWHERE, Network, executable, two_hosts
from tests.launch.waiting import LIMIT, TEST_LIMIT, gone, marked, number_in, until

pytestmark = pytest.mark.timeout(TEST_LIMIT)
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
PLACES = """
    import json
    from pathlib import Path
    import numpy as np
    from hvd_gossip import basics, runtime
    from hvd_gossip.collectives import Request

    basics.init()
    sum = runtime.current().submit(Request("x", "allreduce", np.ones(100_000), op=1)).wait().output
    place = [basics.rank(), basics.size(), basics.local_rank(), basics.local_size(), basics.cross_rank()]
    place += [basics.cross_size(), basics.is_homogeneous(), float(sum.mean())]
    Path(__file__).with_name(f"{basics.rank()}.json").write_text(json.dumps(place))
    basics.shutdown()
"""
MARK = "OWN"


@pytest.fixture
def network(mpirun: str, tmp_path: Path) -> Iterator[Network]:
    with two_hosts(mpirun, tmp_path) as network:
        yield network


def run(network: Network, what: str) -> LaunchResult:
    """Four ranks on two hosts; each leaves what it sees, and its process id."""
    arguments = [network.script(SCRIPT), str(network.folder), what]
    return launch(network.plan(arguments, network.hosts, env={"OWN": "two words"}))


def results(folder: Path, ranks: int = 4) -> list[Any]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def test_ranks_and_their_environment_reach_both_hosts(network: Network) -> None:
    done = run(network, "end")
    assert done.exit_code == 0
    assert results(network.folder) == [[f"node{1 + rank // 2}", "0.28.1", "3", "two words"] for rank in range(4)]
    assert sorted((end.rank, end.host) for end in done.ends) == [(rank, f"node{1 + rank // 2}") for rank in range(4)]


def test_a_failure_on_another_host_is_named_and_ends_the_job(network: Network) -> None:
    done = run(network, "fail")
    assert done.exit_code == 5
    first = done.first_failure
    assert first is not None
    assert (first.rank, first.host, first.returncode, first.tail) == (3, "node2", 5, ("last words",))
    until(lambda: all(gone(number_in(path)) for path in network.folder.glob("*.pid")))  # killed ones take a moment


def test_ranks_on_other_hosts_do_not_outlive_a_killed_launcher(network: Network) -> None:
    hosts = ",".join(f"{host.name}:{host.slots}" for host in network.hosts)
    options = ["-np", "4", "--seed", "3", "--mpirun", network.mpirun, "-H", hosts]
    options += [f"--mpi-args={' '.join(network.mpi_args())}"]
    script = [sys.executable, network.script(SCRIPT), str(network.folder), "wait"]
    command = [sys.executable, "-m", "hvd_gossip.launch.cli", *options, *script]
    with subprocess.Popen(command, env=os.environ | {MARK: str(network.folder)}) as launcher:
        ranks = [number_in(network.folder / f"{rank}.pid") for rank in range(4)]
        launcher.send_signal(signal.SIGKILL)
    until(lambda: all(map(gone, ranks)))
    until(lambda: not marked(MARK, str(network.folder)))  # MPI's launcher, which ends when it sees that they ended


def test_local_and_cross_ranks_with_uneven_slots(network: Network) -> None:
    """Horovod's definitions: rank 3 is alone on its host, and with rank 0 the only one of local rank 0."""
    assert network.run(PLACES, [network.host(1, 3), network.host(2, 1)]).exit_code == 0
    assert results(network.folder) == [
        [0, 4, 0, 3, 0, 2, False, 4.0],
        [1, 4, 1, 3, 0, 1, False, 4.0],
        [2, 4, 2, 3, 0, 1, False, 4.0],
        [3, 4, 0, 1, 1, 2, False, 4.0],
    ]


def test_local_and_cross_ranks_where_hosts_take_turns(network: Network) -> None:
    in_turns = ["-ppn", "1"] if network.mpich else ["--map-by", "node"]
    assert network.run(PLACES, network.hosts, *in_turns).exit_code == 0
    assert results(network.folder) == [
        [0, 4, 0, 2, 0, 2, True, 4.0],
        [1, 4, 0, 2, 1, 2, True, 4.0],
        [2, 4, 1, 2, 0, 2, True, 4.0],
        [3, 4, 1, 2, 1, 2, True, 4.0],
    ]


def said_of_a_start_that_fails(network: Network, shell: Path | None, start_timeout: float, host: int) -> str:
    """What the launcher says when the second host cannot be reached; nothing of the job may be left."""
    hosts = [network.host(1), network.host(host)]
    arguments = [network.script("import time; time.sleep(600)")]
    env = {MARK: str(network.folder)}
    plan = network.plan(arguments, hosts, shell=shell, start_timeout=start_timeout, env=env)
    done = launch(plan, Patience(stop=0.5, kill=0.5, call=0.0))
    assert done.exit_code != 0
    assert not [end for end in done.ends if not end.told]
    until(lambda: not marked(MARK, str(network.folder)))
    return "\n".join(describe_failure(done, plan))


def test_a_host_that_is_not_there_is_named(network: Network) -> None:
    said = said_of_a_start_that_fails(network, None, 20.0, NOWHERE)
    assert f"{network.subnet}.{NOWHERE}" in said
    assert f"Does this work without a question: {network.shell} {network.subnet}." in said


def test_an_ssh_that_ends_at_once_is_an_error(network: Network) -> None:
    """horovod#3645: on hosts of a Slurm job horovodrun ended without a word."""
    refused = executable(network.folder / "refused", "#!/bin/sh\necho 'Permission denied (publickey).' >&2\nexit 255\n")
    said = said_of_a_start_that_fails(network, refused, 20.0, 2)
    assert f"{network.subnet}.2" in said


def test_an_ssh_that_hangs_ends_with_the_time_limit(network: Network) -> None:
    hanging = executable(network.folder / "hanging", "#!/bin/sh\nexec sleep 600\n")
    said = said_of_a_start_that_fails(network, hanging, 2.0, 2)
    assert "did not start within 2 s" in said
    assert f"{hanging} {network.subnet}.1 true" in said


def test_the_mpi_operators_variables_are_enough(network: Network) -> None:
    """Kubernetes: no hosts on the command line, but a host file and a remote shell, by Open MPI 4's or Hydra's variables."""
    hostfile = network.folder / "hostfile"
    if network.mpich:
        hostfile.write_text("".join(f"{host.name}:{host.slots}\n" for host in network.hosts))
        operator = {"HYDRA_HOST_FILE": str(hostfile), "HYDRA_LAUNCHER": "rsh", "HYDRA_IFACE": network.bridge}
        operator["HYDRA_LAUNCHER_EXEC"] = str(network.shell)
    else:
        hostfile.write_text("".join(f"{host.name} slots={host.slots}\n" for host in network.hosts))
        operator = {
            "OMPI_MCA_orte_default_hostfile": str(hostfile),
            "OMPI_MCA_plm_rsh_agent": str(network.shell),
            "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
            "PRTE_MCA_prte_if_include": f"{network.subnet}.0/24",
            "OMPI_MCA_btl_tcp_if_include": f"{network.subnet}.0/24",
            "OMPI_MCA_pml": "ob1",
        }
    command = [python_of(network.mpirun), network.script(PLACES)]
    done = launch(make_plan(4, command, mpirun=network.mpirun, environ=os.environ | operator))
    assert done.exit_code == 0
    assert [place[2:6] for place in results(network.folder)] == [[0, 2, 0, 2], [1, 2, 0, 2], [0, 2, 1, 2], [1, 2, 1, 2]]


def test_a_function_is_called_on_both_hosts(network: Network) -> None:
    def where() -> tuple[str, str]:
        import socket

        return socket.gethostname(), os.environ["HVD_GOSSIP_SEED"]

    hosts = ",".join(f"{host.name}:1" for host in network.hosts)
    mpi_args = " ".join(network.mpi_args())
    found = hvd_gossip.run(where, num_proc=2, hosts=hosts, mpi_args=mpi_args, mpirun=network.mpirun, seed=5)
    assert found == [("node1", "5"), ("node2", "5")]


def test_a_network_interface_is_enough_to_find_each_other(network: Network) -> None:
    """The launcher itself on node1, whose eth0 is the only way to node2; horovodrun's --network-interfaces."""
    hosts = ",".join(f"{host.name}:2" for host in network.hosts)
    shell = ["-launcher", "rsh", "-launcher-exec"] if network.mpich else ["--prtemca", "plm_ssh_agent"]
    options = ["-np", "4", "-H", hosts, "--network-interfaces", "eth0", "--tcp", "--mpirun", network.mpirun]
    options += [f"--mpi-args={' '.join([*shell, str(network.shell)])}"]
    launcher = [sys.executable, "-m", "hvd_gossip.launch.cli", *options]
    command = shlex.join([*launcher, python_of(network.mpirun), network.script(PLACES)])
    namespace = f"{network.bridge.replace('br', '')}x1"
    words = ["ip", "netns", "exec", namespace, "unshare", "--uts", "sh", "-c", f"hostname node1; exec {command}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert [place[2:6] for place in results(network.folder)] == [[0, 2, 0, 2], [1, 2, 0, 2], [0, 2, 1, 2], [1, 2, 1, 2]]
