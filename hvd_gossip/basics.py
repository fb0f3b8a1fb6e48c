"""Horovod's basic functions, the same for every framework: ranks, what is built in, process sets."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from hvd_gossip import process_sets as registration
from hvd_gossip import runtime
from hvd_gossip.process_sets import ProcessSet as ProcessSet
from hvd_gossip.process_sets import add_process_set as add_process_set
from hvd_gossip.process_sets import global_process_set as global_process_set
from hvd_gossip.process_sets import process_set_id as process_set_id
from hvd_gossip.process_sets import remove_process_set as remove_process_set

is_initialized = runtime.is_initialized


def init(comm: Any = None, process_sets: Sequence[ProcessSet] | str | None = None, **settings: object) -> None:
    """Starts hvd-gossip in this process. Called again, it does nothing (as Horovod's).

    Args:
        comm: None for all ranks of MPI's COMM_WORLD, a list of them, or an mpi4py communicator, which is cloned.
        process_sets: the same sets on all ranks, or those of communicators that split the ranks; or "dynamic", to be free
            to add and remove sets later (HOROVOD_DYNAMIC_PROCESS_SETS).
        settings: any setting by name, such as `algorithm` and `topology`; they go before the environment's.

    Raises:
        ConfigError: an unknown setting or a bad value. ValueError: process sets that are none, or differ between ranks.
    """
    if runtime.is_initialized():
        return
    if isinstance(process_sets, str):
        if process_sets.lower() != "dynamic":
            raise ValueError(f'process_sets is a list of ProcessSet, or "dynamic", not {process_sets!r}')
        process_sets, settings = None, {**settings, "dynamic_process_sets": True}
    sets = list(process_sets or ())
    if not all(isinstance(one, ProcessSet) for one in sets):
        raise ValueError(f'process_sets is a list of ProcessSet, or "dynamic", not {process_sets!r}')
    _forget_names()
    now = runtime.init(comm, **settings)
    try:
        registration.register(now, [one for one in sets if one is not global_process_set])
    except BaseException:
        shutdown()
        raise


def shutdown() -> None:
    """Departs and stops. Does nothing if hvd-gossip does not run."""
    registration.forget()
    runtime.shutdown()


def restart() -> None:
    """Shuts down and initializes again, with the same communicator, settings and process sets. Every rank calls it.

    Raises:
        WaitTimeoutError: other ranks did not, for `wait_timeout`.
    """
    sets = registration.registered()
    registration.forget()
    _forget_names()
    registration.register(runtime.restart(), sets)


def start_timeline(file_path: str, mark_cycles: bool = False) -> None:
    """Creates a timeline file and begins to record; see docs/timeline.md. What is being recorded already is completed first.

    Args:
        file_path: of the file. Rank 0 writes it, and on other ranks this does nothing; a path with `{rank}` in it gives every
            rank that calls this its own.
        mark_cycles: whether to mark when the controller answers requests.

    Raises:
        ValueError: before `init`, or HOROVOD_TIMELINE was not set (to DYNAMIC, or a file) by then. OSError: no such folder.
    """
    runtime.current().timeline.start(file_path, mark_cycles)


def stop_timeline() -> None:
    """Ends the recording that is under way and completes its file; does nothing if there is none.

    Raises:
        ValueError: before `init`.
    """
    runtime.current().timeline.stop()


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


_unnamed: dict[int, Iterator[str]] = {}
"""The numbers to come, by process set: ranks outside of a set do not see the operations inside."""
_joins = 0


def operation_name(kind: str, name: str | None, process_set: int = 0) -> str:
    """Horovod's full name of an operation: `allreduce.NAME`, or a number for one without a name.

    Numbers are given in the order of calls since `init()`, or since the last `join()`: the ranks of a process set must call
    unnamed operations in the same order.
    """
    if name is not None:
        return f"{kind}.{name}"
    return f"{kind}.noname.{next(_unnamed.setdefault(process_set, _numbers()))}"


def join() -> int:
    """Rests until all ranks have joined; see `Runtime.join`.

    Ranks that joined early have missed unnamed operations, so that numbers begin anew, as "1.1", "1.2"... after the first join.

    Returns:
        The rank that joined last.
    """
    global _joins
    last = runtime.current().join()
    _joins += 1
    _unnamed.clear()
    return last


def _forget_names() -> None:
    global _joins
    _joins = 0
    _unnamed.clear()


def _numbers() -> Iterator[str]:
    prefix = f"{_joins}." if _joins else ""
    return (f"{prefix}{number}" for number in itertools.count(1))
