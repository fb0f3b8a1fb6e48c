"""Launches over real ssh, to two hosts made of network namespaces, with a port and a key of their own.

Needs root, and sshd: the system's, or the one that HVD_TEST_SSHD names.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hvd_gossip.launch.describe import describe_failure
from hvd_gossip.launch.launcher import launch
from hvd_gossip.launch.plan import Network as Reached
from hvd_gossip.launch.plan import Plan, make_plan
from tests.launch.conftest import python_of
from tests.launch.network import Network, two_hosts
from tests.launch.waiting import TEST_LIMIT, until

PORT = 2222
SSHD = os.environ.get("HVD_TEST_SSHD") or shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
QUESTIONS = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
"""New hosts ask no question."""
SCRIPT = """
    import json, socket
    from pathlib import Path
    from hvd_gossip import basics

    basics.init()
    place = [socket.gethostname(), basics.size(), basics.local_rank(), basics.cross_rank()]
    Path(__file__).with_name(f"{basics.rank()}.json").write_text(json.dumps(place))
    basics.shutdown()
"""

pytestmark = [
    pytest.mark.timeout(TEST_LIMIT),
    pytest.mark.skipif(not SSHD or not shutil.which("ssh-keygen"), reason="no sshd: name one in HVD_TEST_SSHD"),
]


@pytest.fixture
def network(mpirun: str, tmp_path: Path) -> Iterator[Network]:
    """Two hosts on which sshd listens, and lets in who has tmp_path/key."""
    with two_hosts(mpirun, tmp_path) as network, ExitStack() as running:
        for name in ("key", "hostkey"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
            subprocess.run(command, check=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        for number in (1, 2):
            command = serving(network, number)
            server = running.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True))
            running.callback(os.killpg, server.pid, signal.SIGKILL)
            until(lambda number=number: listens(network, number))  # type: ignore[misc]
        yield network


def serving(network: Network, number: int) -> list[str]:
    assert SSHD is not None
    folder = network.folder
    options = [
        f"AuthorizedKeysFile={folder}/key.pub",
        "StrictModes=no",
        "UsePAM=no",
        "PidFile=none",
        "LoginGraceTime=5",
        "PermitRootLogin=yes",
    ]
    words = [SSHD, "-D", "-f", "/dev/null", "-p", str(PORT), "-h", str(folder / "hostkey")]
    words += [word for option in options for word in ("-o", option)]
    namespace = f"{network.bridge.replace('br', '')}x{number}"
    named = f"hostname node{number}; exec {' '.join(words)}"
    return ["ip", "netns", "exec", namespace, "unshare", "--uts", "sh", "-c", named]


def listens(network: Network, number: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((f"{network.subnet}.{number}", PORT)) == 0


def plan(network: Network, key: str, start_timeout: float = 30.0) -> Plan:
    return make_plan(
        4,
        [python_of(network.mpirun), network.script(SCRIPT)],
        hosts=network.hosts,
        mpi_args=network.message_args(),
        network=Reached(PORT, key),
        mpirun=network.mpirun,
        start_timeout=start_timeout,
        environ=os.environ | {"PRTE_MCA_plm_ssh_args": QUESTIONS, "HYDRA_LAUNCHER_EXTRA_ARGS": QUESTIONS},
    )


def test_ranks_are_started_by_ssh_with_port_and_key(network: Network) -> None:
    """horovod#1401: with -p and a remote host horovodrun stood still, while the mpirun command that it printed worked."""
    assert launch(plan(network, str(network.folder / "key"))).exit_code == 0
    places = [json.loads((network.folder / f"{rank}.json").read_text()) for rank in range(4)]
    assert places == [[f"node{1 + rank // 2}", 4, rank % 2, rank // 2] for rank in range(4)]


def test_a_key_that_is_refused_is_an_error_with_the_command_to_try(
    network: Network, capfd: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(network.folder / "other")], check=True)
    made = plan(network, str(network.folder / "other"))
    done = launch(made)
    said = "\n".join(describe_failure(done, made))
    assert done.exit_code != 0
    assert f"ssh {QUESTIONS} -p {PORT} -i {network.folder}/other {network.subnet}.1 true" in said
    assert "Permission denied" in capfd.readouterr().err
