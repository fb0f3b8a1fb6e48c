"""Ranks and hosts, by Horovod's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hvd_gossip.errors import ConfigError
from hvd_gossip.world.surroundings import check_not_alone

Comm = Any
"""An mpi4py communicator, or a list of ranks of COMM_WORLD, or None for all."""


@dataclass(frozen=True)
class World:
    """All workers, seen from one.

    Attributes:
        rank: this worker, 0 <= rank < size.
        hosts: the host of each rank, as an index from 0 in the order of the lowest rank there.
        names: the name of each rank's host.
    """

    rank: int
    hosts: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.hosts)

    @property
    def local_ranks(self) -> list[int]:
        """The ranks on this worker's host, ascending."""
        return [rank for rank, host in enumerate(self.hosts) if host == self.hosts[self.rank]]

    @property
    def local_rank(self) -> int:
        """Position of this worker among those of its host."""
        return self.local_ranks.index(self.rank)

    @property
    def local_size(self) -> int:
        """Number of workers on this worker's host."""
        return len(self.local_ranks)

    @property
    def _peers_across(self) -> list[int]:
        """The ranks, one a host, that have this worker's local rank."""
        members: dict[int, int] = {}
        across = []
        for rank, host in enumerate(self.hosts):
            members[host] = members.get(host, -1) + 1
            if members[host] == self.local_rank:
                across.append(rank)
        return across

    @property
    def cross_rank(self) -> int:
        """Position of this worker among those of the same local rank on all hosts."""
        return self._peers_across.index(self.rank)

    @property
    def cross_size(self) -> int:
        """Number of hosts that have a worker of this local rank."""
        return len(self._peers_across)

    @property
    def is_homogeneous(self) -> bool:
        """Whether every host has the same number of workers."""
        counts = {self.hosts.count(host) for host in set(self.hosts)}
        return len(counts) == 1


def number_hosts(leaders: Sequence[int]) -> tuple[int, ...]:
    """Host indices of the ranks, from the lowest rank of each one's host."""
    index = {leader: number for number, leader in enumerate(sorted(set(leaders)))}
    return tuple(index[leader] for leader in leaders)


def find_communicator(mpi: Any, comm: Comm) -> Any:
    """The communicator that `comm` says; making one of a list of ranks is a collective among those.

    Raises:
        ConfigError: this process is not in the list.
    """
    if comm is None or comm == []:
        return mpi.COMM_WORLD
    if isinstance(comm, mpi.Comm):
        return comm
    rank = mpi.COMM_WORLD.Get_rank()
    if rank not in comm:
        raise ConfigError(f"rank {rank} called init(comm={list(comm)}) and is not in the list")
    return mpi.COMM_WORLD.Create_group(mpi.COMM_WORLD.Get_group().Incl(list(comm)))


def discover(comm: Any, mpi: Any) -> World:
    """The world of an MPI communicator. Collective over it; called once, on the engine's thread.

    Ranks are on one host if MPI can share memory between them.

    Raises:
        LaunchError: this process is alone, and the variables of a launcher say that it is one of several.
    """
    check_not_alone(mpi.COMM_WORLD.Get_size(), library_name(mpi))
    rank = comm.Get_rank()
    shared = comm.Split_type(mpi.COMM_TYPE_SHARED, rank)
    leader = shared.allreduce(rank, mpi.MIN)
    shared.Free()
    everybody = comm.allgather((leader, mpi.Get_processor_name()))
    return World(rank, number_hosts([leader for leader, _ in everybody]), tuple(name for _, name in everybody))


def library_name(mpi: Any) -> str:
    """ "Open MPI 5.0.11", "MPICH 5.0.2"."""
    name, version = mpi.get_vendor()
    return f"{name} {'.'.join(map(str, version))}"
