"""Horovod's basic functions, the same for every framework: ranks, what is built in, process sets."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from typing import Any

from hvd_gossip import runtime

shutdown = runtime.shutdown
is_initialized = runtime.is_initialized


class ProcessSet:
    """Ranks that an operation takes part of (Horovod's class). So far there is one set, the global one.

    Args:
        ranks: must be empty: further sets are not built yet.

    Raises:
        NotImplementedError: ranks were given.
    """

    process_set_id = 0

    def __init__(self, ranks: Sequence[int] = ()) -> None:
        if ranks:
            raise NotImplementedError(f"process sets of some ranks are not built yet, only the global one; got {ranks}")

    @property
    def ranks(self) -> list[int]:
        """All ranks of the set, ascending."""
        return list(range(size()))

    def size(self) -> int:
        """Number of ranks in the set."""
        return size()

    def rank(self) -> int:
        """This process's position in the set."""
        return rank()

    def included(self) -> bool:
        """Whether this process is in the set."""
        return True

    def __repr__(self) -> str:
        return "ProcessSet(global)"


global_process_set = ProcessSet()


def init(comm: Any = None, process_sets: Sequence[ProcessSet] | str | None = None, **settings: object) -> None:
    """Starts hvd-gossip in this process. Called again, it does nothing (as Horovod's).

    Args:
        comm: None for all ranks of MPI's COMM_WORLD, a list of them, or an mpi4py communicator, which is cloned.
        process_sets: None, or no more than the global set.
        settings: any setting by name, such as `algorithm` and `topology`; they go before the environment's.

    Raises:
        ConfigError: an unknown setting or a bad value. NotImplementedError: further process sets.
    """
    for process_set in process_sets or ():
        require_global(process_set)
    runtime.init(comm, **settings)


def require_global(process_set: object) -> None:
    """Raises NotImplementedError unless the process set is the global one."""
    if not isinstance(process_set, ProcessSet):
        raise NotImplementedError(f"only the global process set is built so far; got {process_set!r}")


def rank() -> int:
    """This process's rank, 0 <= rank < size(). Before `init()`: NotInitializedError, as with all functions of ranks."""
    return runtime.current().world.rank


def size() -> int:
    """Number of processes."""
    return runtime.current().world.size


def local_rank() -> int:
    """Position of this process among those of its host."""
    return runtime.current().world.local_rank


def local_size() -> int:
    """Number of processes on this host."""
    return runtime.current().world.local_size


def cross_rank() -> int:
    """Position of this host among those that have a process of this local rank."""
    return runtime.current().world.cross_rank


def cross_size() -> int:
    """Number of hosts that have a process of this local rank."""
    return runtime.current().world.cross_size


def is_homogeneous() -> bool:
    """Whether every host has the same number of processes."""
    return runtime.current().world.is_homogeneous


def mpi_threads_supported() -> bool:
    """Whether the script may call MPI itself beside this package: MPI runs at THREAD_MULTIPLE."""
    now = runtime.current()

    async def ask() -> bool:
        return bool(now.mpi.Query_thread() == now.mpi.THREAD_MULTIPLE)

    return now.engine.call(ask, "asking for MPI's thread level")


def mpi_enabled() -> bool:
    """Whether operations run over MPI now: always, once initialized."""
    return runtime.is_initialized()


def mpi_built() -> bool:
    """Whether mpi4py is installed."""
    return importlib.util.find_spec("mpi4py") is not None


def cuda_built() -> bool:
    """Whether tensors on CUDA devices can be communicated: CuPy is installed."""
    return importlib.util.find_spec("cupy") is not None


def nccl_built() -> int:
    """Version of NCCL that operations run over; 0, since none do."""
    return 0


def gloo_enabled() -> bool:
    """False: there is no Gloo here."""
    return False


def gloo_built() -> bool:
    """False: there is no Gloo here."""
    return False


def ddl_built() -> bool:
    """False: there is no IBM DDL here."""
    return False


def ccl_built() -> bool:
    """False: there is no Intel oneCCL here."""
    return False


def rocm_built() -> bool:
    """False: AMD's GPUs are not supported."""
    return False


_unnamed = itertools.count(1)


def operation_name(kind: str, name: str | None) -> str:
    """Horovod's full name of an operation: `allreduce.NAME`, or a number for one without a name.

    Numbers are given in the order of calls: ranks must call unnamed operations in the same order.
    """
    return f"{kind}.noname.{next(_unnamed)}" if name is None else f"{kind}.{name}"
