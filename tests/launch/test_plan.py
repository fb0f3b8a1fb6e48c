"""What is settled and checked before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.launch import plan as planning
from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.mpirun import Flavour
from hvd_gossip.launch.plan import AGENT, Network, Plan, make_plan

ENVIRON: Mapping[str, str] = {"PATH": "/usr/bin:/bin"}
ELSEWHERE = (Host("far.example", 4),)


def plan(np: int = 2, command: tuple[str, ...] = ("sh", "-c", "true"), **more: Any) -> Plan:
    return make_plan(np, command, **{"environ": ENVIRON, **more})


def test_ranks_run_the_command_through_an_agent() -> None:
    made = plan(3)
    assert made.job.command == (*AGENT, "sh", "-c", "true")
    assert made.command[0] == made.mpirun.path
    assert made.command[-len(made.job.command) :] == made.job.command


def test_a_script_runs_with_this_python(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.touch()
    assert plan(command=(str(script), "--lr")).job.command == (*AGENT, sys.executable, str(script), "--lr")


@pytest.mark.parametrize(
    ("command", "message"),
    [((), "no command"), (("missing.py",), "no file missing.py"), (("no-such-program",), "no program no-such-program")],
)
def test_a_command_that_cannot_run_is_refused(command: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(command=command)


def test_what_other_hosts_have_is_not_known_here() -> None:
    assert plan(command=("no-such-program",), hosts=ELSEWHERE).job.command[-1] == "no-such-program"


@pytest.mark.parametrize("np", [0, -3])
def test_at_least_one_rank(np: int) -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        plan(np)


@pytest.mark.parametrize(("inject", "bad"), [("slow=2:10", 2), ("slow=0:3,slow=7:2", 7)])
def test_a_slowed_rank_must_exist(inject: str, bad: int) -> None:
    message = f"slows rank {bad}, but the ranks are 0 to 1"
    with pytest.raises(ConfigError, match=message):
        plan(settings={"inject": inject})
    with pytest.raises(ConfigError, match=message):
        plan(environ={**ENVIRON, "HVD_GOSSIP_INJECT": inject})
    assert plan(8, settings={"inject": inject}).environment["HVD_GOSSIP_INJECT"] == inject


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "sgd"}, "Valid: auto, allreduce"),
        ({"topology": "rinng"}, "Did you mean ring"),
        ({"algoritm": "sgp"}, "unknown setting 'algoritm'.*Did you mean algorithm"),
        ({"wire_dtype": "int8"}, "Valid: parameter, float32"),
        ({"inject": "fast=1:2"}, "slow=RANK:FACTOR"),
    ],
)
def test_bad_settings_list_the_valid_ones(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(settings=settings)


def test_bad_variables_are_found_too() -> None:
    with pytest.raises(ConfigError, match="environment variable HVD_GOSSIP_ALGORITHM"):
        plan(environ={**ENVIRON, "HVD_GOSSIP_ALGORITHM": "sgd"})


def test_a_topology_that_the_algorithm_cannot_use_is_found_before_the_start() -> None:
    with pytest.raises(TopologyError, match="power of two"):
        plan(6, settings={"algorithm": "dpsgd", "topology": "hypercube"})
    assert plan(6, settings={"algorithm": "allreduce", "topology": "hypercube"})  # which mixes with nobody


def test_too_large_topologies_are_left_to_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LARGEST_CHECKED", 5)
    assert plan(6, settings={"algorithm": "dpsgd", "topology": "hypercube"})


def test_hierarchies_see_the_hosts() -> None:
    hosts = (Host("a", 2), Host("b", 2))
    settings = {"algorithm": "dpsgd", "topology": "hierarchical"}
    assert plan(4, settings=settings, hosts=hosts).environment["HVD_GOSSIP_TOPOLOGY"] == "hierarchical"


@pytest.mark.parametrize(
    ("np", "hosts", "threads"), [(1, (), 8), (3, (), 2), (20, (), 1), (4, (Host("a", 2), Host("b", 2)), 4)]
)
def test_threads_share_a_host_s_cores(
    monkeypatch: pytest.MonkeyPatch, np: int, hosts: tuple[Host, ...], threads: int
) -> None:
    monkeypatch.setattr(planning, "cores", lambda: 8)
    assert plan(np, hosts=hosts).environment["OMP_NUM_THREADS"] == str(threads)


@pytest.mark.parametrize(
    ("np", "hosts", "more", "oversubscribed"),
    [
        (8, (), {}, False),
        (9, (), {}, True),
        (9, (), {"SLURM_JOB_ID": "1"}, False),
        (4, ELSEWHERE, {}, False),
        (5, ELSEWHERE, {}, True),
        (16, (Host("localhost", 16),), {}, False),
    ],
)
def test_more_ranks_than_cores_or_slots(
    monkeypatch: pytest.MonkeyPatch, np: int, hosts: tuple[Host, ...], more: dict[str, str], oversubscribed: bool
) -> None:
    monkeypatch.setattr(planning, "cores", lambda: 8)
    assert plan(np, hosts=hosts, environ={**ENVIRON, **more}).job.oversubscribe is oversubscribed


@pytest.mark.parametrize(
    ("more", "remote"),
    [
        ({}, False),
        ({"hosts": (Host("localhost", 2),)}, False),
        ({"hosts": ELSEWHERE}, True),
        ({"environ": {**ENVIRON, "PBS_JOBID": "1"}}, True),
        ({"mpi_args": ("--hostfile", "x")}, True),
    ],
)
def test_whether_agents_may_call_from_elsewhere(more: dict[str, Any], remote: bool) -> None:
    assert plan(**more).remote is remote


@pytest.mark.parametrize(
    ("given", "environ", "seconds"),
    [
        (None, {}, 30.0),
        (None, {"HOROVOD_START_TIMEOUT": "600"}, 600.0),
        (5.0, {"HOROVOD_START_TIMEOUT": "600"}, 5.0),
        (0, {}, 0),
    ],
)
def test_how_long_a_start_may_take(given: float | None, environ: dict[str, str], seconds: float) -> None:
    assert plan(start_timeout=given, environ={**ENVIRON, **environ}).start_timeout == seconds


def test_a_time_limit_that_is_none() -> None:
    with pytest.raises(ConfigError, match="HOROVOD_START_TIMEOUT=soon: expected seconds"):
        plan(environ={**ENVIRON, "HOROVOD_START_TIMEOUT": "soon"})
    with pytest.raises(ConfigError, match="start time-out -1: expected seconds"):
        plan(start_timeout=-1)


def test_network_interfaces_must_exist_here() -> None:
    assert plan(network=Network(interfaces=("lo",))).job.interfaces == ("lo",)
    with pytest.raises(ConfigError, match=r"no network interface 'nic7'; it has .*\blo\b"):
        plan(network=Network(interfaces=("lo", "nic7")))


def test_network_and_binding_reach_the_job() -> None:
    made = plan(network=Network(2222, "key", (), True), binding_args=["--bind-to", "core"], hosts=ELSEWHERE, np=4)
    assert (made.job.ssh_args, made.job.tcp, made.job.binding) == (
        ("-p", "2222", "-i", "key"),
        True,
        ("--bind-to", "core"),
    )


def test_horovod_2097_an_allocation_s_hosts_are_not_replaced_by_this_one() -> None:
    """horovod#2097: `run(f, np=2)` within a Slurm job of two nodes asked for `-H localhost:2`, which Slurm had none of."""
    made = plan(4, environ={**ENVIRON, "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"})
    assert made.job.hosts == ()
    assert made.remote
    words = made.command[: -len(made.job.command)]
    assert not [word for word in words if "host" in word.lower() or word == "-H"]


def test_what_the_mpi_operator_says_reaches_the_launcher_and_the_ranks() -> None:
    made = plan(environ={**ENVIRON, "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile"})
    if made.mpirun.flavour is Flavour.OPEN_MPI_5:
        assert made.environment["PRTE_MCA_prte_default_hostfile"] == "/etc/mpi/hostfile"
    assert made.remote


def test_the_host_of_a_rank_is_known_where_hosts_are_given() -> None:
    made = plan(3, hosts=(Host("a", 2), Host("b", 1)))
    assert [made.host_of(rank) for rank in range(3)] == ["a", "a", "b"]
    assert plan(2).host_of(1) == ""
