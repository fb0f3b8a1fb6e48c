"""Everything about a job that is settled, and can be found wrong, before anything is started."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvd_gossip import config
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.errors import ConfigError
from hvd_gossip.launch.agent import options
from hvd_gossip.launch.environment import exported_names, rank_environment
from hvd_gossip.launch.hosts import Host, cores, placement, total_slots
from hvd_gossip.launch.mpirun import Job, Mpirun, build_command, find_mpirun
from hvd_gossip.topology import make_topology, require_needs

AGENT = (sys.executable, "-I", "-S", str(Path(options.__file__).parent))
"""How a rank's agent is started; the rank's command follows."""
LARGEST_CHECKED = 256
"""Up to this many ranks the topology is built beforehand, to see whether the algorithm can use it."""

_ALLOCATIONS = (
    *("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "PE_HOSTFILE"),  # resource managers
    *(
        "OMPI_MCA_orte_default_hostfile",
        "PRTE_MCA_prte_default_hostfile",
        "HYDRA_HOST_FILE",
    ),  # Kubernetes' MPI operator
)


@dataclass(frozen=True)
class Plan:
    """A job, checked.

    Attributes:
        mpirun: the MPI launcher.
        job: what it is to run.
        environment: its environment, and with that the ranks'.
    """

    mpirun: Mpirun
    job: Job
    environment: dict[str, str]

    @property
    def command(self) -> tuple[str, ...]:
        """What starts the MPI launcher."""
        return tuple(build_command(self.mpirun, self.job))

    @property
    def remote(self) -> bool:
        """Whether ranks may run on other hosts; the user's own arguments may mean anything."""
        if self.job.hosts:
            return not all(host.local for host in self.job.hosts)
        return _allocated(self.environment) or bool(self.job.mpi_args)


def make_plan(
    np: int,
    command: Sequence[str],
    settings: Mapping[str, object] | None = None,
    hosts: Sequence[Host] = (),
    mpi_args: Sequence[str] = (),
    mpirun: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Plan:
    """Checks a job. Arguments as for `launch`.

    Raises:
        ConfigError: an invalid setting, number of ranks, or command.
        TopologyError: the topology does not exist for so many ranks, or the algorithm cannot use it.
        LaunchError: no MPI launcher that is known.
    """
    if np < 1:
        raise ConfigError(f"{np} ranks: expected at least 1")
    hosts_of_ranks = placement(np, hosts)
    threads = max(1, cores() // max(map(hosts_of_ranks.count, set(hosts_of_ranks))))
    environment = rank_environment(settings or {}, threads, environ)
    _check_settings(config.load(environ=environment), hosts_of_ranks)
    job = Job(
        np=np,
        command=AGENT + _runnable(command, hosts, environment),
        hosts=tuple(hosts),
        oversubscribe=_oversubscribed(np, hosts, environ),
        exported=exported_names({**environment, options.VARIABLE: ""}),
        mpi_args=tuple(mpi_args),
        as_root=os.geteuid() == 0,
    )
    return Plan(find_mpirun(mpirun), job, environment)


def _check_settings(settings: config.Config, hosts_of_ranks: Sequence[int]) -> None:
    np = len(hosts_of_ranks)
    beyond = [rank for rank in config.slow_factors(settings.inject) if rank >= np]
    if beyond:
        raise ConfigError(f"inject={settings.inject!r} slows rank {beyond[0]}, but the ranks are 0 to {np - 1}")
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
    return np > cores() and not _allocated(environ)


def _allocated(environ: Mapping[str, str]) -> bool:
    """Whether somebody else says where ranks run; the limits are theirs."""
    return any(name in environ for name in _ALLOCATIONS)
