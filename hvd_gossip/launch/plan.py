"""Everything about a job that is settled, and can be found wrong, before anything is started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from hvd_gossip import config
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.choice.chooser import meanwhile
from hvd_gossip.errors import ConfigError
from hvd_gossip.launch.agent import options
from hvd_gossip.launch.allocation import is_allocated
from hvd_gossip.launch.environment import exported_names, rank_environment
from hvd_gossip.launch.hosts import Host, cores, placement, total_slots
from hvd_gossip.launch.mpirun import Job, Mpirun, build_command, find_mpirun, ssh_args, variables
from hvd_gossip.topology import make_topology, require_needs

AGENT = (sys.executable, "-I", "-S", str(Path(options.__file__).parent))
"""How a rank's agent is started; the rank's command follows."""
START_TIMEOUT = 30.0
"""Seconds in which ranks must start, where nobody says otherwise (Horovod's documented default)."""
LARGEST_CHECKED = 256
"""Up to this many ranks the topology is built beforehand, to see whether the algorithm can use it."""


@dataclass(frozen=True)
class Network:
    """How hosts are reached.

    Attributes:
        ssh_port: ssh's port on the other hosts; None: ssh's own default.
        ssh_identity_file: file of the key that ssh shows.
        interfaces: names of the network interfaces that may be used; none: the launcher's choice.
        tcp: messages between hosts go over TCP only, whatever else the network offers.
    """

    ssh_port: int | None = None
    ssh_identity_file: str | None = None
    interfaces: tuple[str, ...] = ()
    tcp: bool = False


@dataclass(frozen=True)
class Output:
    """What becomes of the ranks' output beside being passed on.

    Attributes:
        folder: a rank's goes to FOLDER/rank.N/stdout and stderr as well, on the rank's host; empty: no files.
        timestamps: each line begins with the time.
    """

    folder: str = ""
    timestamps: bool = False


@dataclass(frozen=True)
class Plan:
    """A job, checked.

    Attributes:
        mpirun: the MPI launcher.
        job: what it is to run.
        environment: its environment, and with that the ranks'.
        output: what becomes of the ranks' output.
        start_timeout: seconds within which every rank must have started; 0: none.
    """

    mpirun: Mpirun
    job: Job
    environment: dict[str, str]
    output: Output = Output()
    start_timeout: float = START_TIMEOUT

    @property
    def command(self) -> tuple[str, ...]:
        """What starts the MPI launcher."""
        return tuple(build_command(self.mpirun, self.job))

    @property
    def remote(self) -> bool:
        """Whether ranks may run on other hosts; the user's own arguments may mean anything."""
        if self.job.hosts:
            return not all(host.local for host in self.job.hosts)
        return is_allocated(self.environment) or bool(self.job.mpi_args)

    def host_of(self, rank: int) -> str:
        """Where a rank was to run, as far as that is said; empty otherwise."""
        hosts = self.job.hosts
        return hosts[placement(self.job.np, hosts)[rank]].name if hosts else ""


def make_plan(
    np: int,
    command: Sequence[str],
    settings: Mapping[str, object] | None = None,
    hosts: Sequence[Host] = (),
    *,
    mpi_args: Sequence[str] = (),
    binding_args: Sequence[str] | None = None,
    network: Network = Network(),  # immutable
    output: Output = Output(),
    start_timeout: float | None = None,
    mpirun: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Plan:
    """Checks a job; `launcher.launch` runs it.

    Args:
        np: number of ranks, at least 1.
        command: a rank's command; one that begins with a .py file is run with this Python.
        settings: settings by name, as for `hvd_gossip.config.load`.
        hosts: where to run; none: this machine, or a resource manager's allocation.
        mpi_args: further arguments of the MPI launcher.
        binding_args: its arguments on where in a machine ranks run, in place of ours.
        network: how hosts are reached.
        output: what becomes of the ranks' output.
        start_timeout: seconds within which every rank must have started, 0: none; None: HOROVOD_START_TIMEOUT, or 30.
        mpirun: path of the MPI launcher; default: the one beside this Python, else the first on PATH.
        environ: environment that the ranks inherit.

    Raises:
        ConfigError: an invalid setting, number of ranks, command, network interface or time-out.
        TopologyError: the topology does not exist for so many ranks, or the algorithm cannot use it.
        LaunchError: no MPI launcher that is known.
    """
    if np < 1:
        raise ConfigError(f"{np} ranks: expected at least 1")
    hosts_of_ranks = placement(np, hosts)
    threads = max(1, cores() // max(map(hosts_of_ranks.count, set(hosts_of_ranks))))
    environment = rank_environment(settings or {}, threads, environ)
    _check_settings(config.load(environ=environment), hosts_of_ranks)
    found = find_mpirun(mpirun)
    job = Job(
        np=np,
        command=AGENT + _runnable(command, hosts, environment),
        hosts=tuple(hosts),
        oversubscribe=_oversubscribed(np, hosts, environ),
        mpi_args=tuple(mpi_args),
        binding=None if binding_args is None else tuple(binding_args),
        interfaces=_checked_interfaces(network.interfaces),
        ssh_args=ssh_args(found, environ, network.ssh_port, network.ssh_identity_file),
        tcp=network.tcp,
        as_root=os.geteuid() == 0,
    )
    environment |= variables(found, job, environ)
    job = replace(job, exported=exported_names({**environment, options.VARIABLE: ""}))
    plan = Plan(found, job, environment, output, _start_timeout(start_timeout, environ))
    build_command(found, job)  # finds what this launcher cannot do
    return plan


def _start_timeout(given: float | None, environ: Mapping[str, str]) -> float:
    text = environ.get("HOROVOD_START_TIMEOUT") or str(START_TIMEOUT)
    try:
        seconds = float(text if given is None else given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        source = f"HOROVOD_START_TIMEOUT={text}" if given is None else f"start time-out {given}"
        raise ConfigError(f"{source}: expected seconds, or 0 for none")
    return seconds


def _checked_interfaces(names: Sequence[str]) -> tuple[str, ...]:
    known = psutil.net_if_addrs()
    for name in names:
        if name not in known:
            raise ConfigError(f"this host has no network interface {name!r}; it has {', '.join(sorted(known))}")
    return tuple(names)


def _check_settings(settings: config.Config, hosts_of_ranks: Sequence[int]) -> None:
    np = len(hosts_of_ranks)
    beyond = [rank for rank in config.slow_factors(settings.inject) if rank >= np]
    if beyond:
        raise ConfigError(f"inject={settings.inject!r} slows rank {beyond[0]}, but the ranks are 0 to {np - 1}")
    settings = meanwhile(settings)
    kind = find_algorithm(settings.algorithm)
    kind.validate(config.mixing_settings(settings))
    if kind.needs != "none" and np <= LARGEST_CHECKED:
        topology = make_topology(
            kind.default_topology if settings.topology == "auto" else settings.topology,
            np,
            seed=settings.seed,
            weights=settings.mixing_weights,
            laziness=settings.laziness,
            hosts=hosts_of_ranks,
        )
        require_needs(topology, kind.needs)


def _runnable(command: Sequence[str], hosts: Sequence[Host], environment: Mapping[str, str]) -> tuple[str, ...]:
    """The command, with this Python before a script; checked where the ranks run on this machine."""
    if not command:
        raise ConfigError("no command: expected, after the options, what each rank shall run, such as python train.py")
    here = all(host.local for host in hosts)
    if command[0].endswith(".py"):
        if here and not os.path.isfile(command[0]):
            raise ConfigError(f"no file {command[0]}")
        return (sys.executable, *command)
    if here and shutil.which(command[0], path=environment["PATH"]) is None:
        raise ConfigError(f"no program {command[0]}, neither as a path nor on PATH")
    return tuple(command)


def _oversubscribed(np: int, hosts: Sequence[Host], environ: Mapping[str, str]) -> bool:
    if hosts:
        return np > total_slots(hosts)
    return np > cores() and not is_allocated(environ)
