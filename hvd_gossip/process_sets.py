"""Process sets: named subsets of the ranks, whose operations run beside each other (Horovod's docs/process_set.rst).

A set is registered on every rank, in the same order, and has the same number there: at `init`, or later if sets are dynamic.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hvd_gossip import runtime
from hvd_gossip.collectives import Request, decode_objects, encode_object
from hvd_gossip.collectives.messages import name_ranks

Comm = Any
"""An mpi4py communicator."""

UNKNOWN = "Process set does not exist or has not been registered."
FOREIGN = "Process is not part of provided process set."
DYNAMIC = "Set HOROVOD_DYNAMIC_PROCESS_SETS=1 to allow {} process sets after Horovod initialization."


def _is_comm(value: object) -> bool:
    # Whoever has a communicator has imported mpi4py.MPI; importing it here would start MPI.
    mpi: Any = sys.modules.get("mpi4py.MPI")
    return mpi is not None and isinstance(value, mpi.Comm)


class ProcessSet:
    """Ranks that run operations together (Horovod's class). Give it to `init`, or to `add_process_set`.

    Args:
        ranks_or_comm: the ranks, or an mpi4py communicator of them.

    Attributes:
        process_set_id: the number of the set, once it is registered; None before, after its removal, and for a set that was
            given to `init` twice. The global set's is 0.
        mpi_comm: the communicator that it was made of, or None.

    Raises:
        ValueError: neither ranks nor a communicator.
    """

    def __init__(self, ranks_or_comm: Sequence[int] | Comm) -> None:
        self.process_set_id: int | None = None
        self.mpi_comm: Comm = None
        self._ranks: list[int] | None = None
        if _is_comm(ranks_or_comm):
            self.mpi_comm = ranks_or_comm
            return
        if not isinstance(ranks_or_comm, Iterable) or not all(isinstance(rank, int) for rank in ranks_or_comm):
            raise ValueError(
                "ProcessSet should be initialized with a list of process ranks or an mpi4py Comm object, "
                f"not {ranks_or_comm!r}"
            )
        self._ranks = sorted(ranks_or_comm)

    @property
    def ranks(self) -> list[int] | None:
        """The global ranks of the set, ascending. None for a communicator's before `init`; [] for the global set's."""
        if self.process_set_id == 0 and runtime.is_initialized():
            return list(range(runtime.current().world.size))
        return self._ranks

    def size(self) -> int | None:
        """Number of ranks in the set, or None if it is not registered."""
        if self.process_set_id is None:
            return None
        return runtime.current().world.size if self.process_set_id == 0 else len(self._ranks or ())

    def rank(self) -> int | None:
        """This process's position in the set, or None if that is not registered. Operations take global ranks all the same.

        Raises:
            ValueError: this process is not in the set.
        """
        if self.process_set_id is None:
            return None
        rank = runtime.current().world.rank
        if self.process_set_id == 0:
            return rank
        if self._ranks is None or rank not in self._ranks:
            raise ValueError(FOREIGN)
        return self._ranks.index(rank)

    def included(self) -> bool | None:
        """Whether this process is in the set; None for a communicator's before `init`."""
        if self.process_set_id == 0:
            return runtime.current().world.rank >= 0
        return None if self._ranks is None else runtime.current().world.rank in self._ranks

    def __repr__(self) -> str:
        return f"ProcessSet(process_set_id={self.process_set_id}, ranks={self.ranks}, mpi_comm={self.mpi_comm})"

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is the set itself or, in another run, the one that has these ranks there."""
        if self.ranks is None:
            raise TypeError("a process set of a communicator can be copied and pickled once it is registered")
        return _same_set, (self.process_set_id == 0, tuple(self.ranks))

    def _register(self, number: int | None, ranks: Sequence[int]) -> None:
        self.process_set_id, self._ranks = number, list(ranks)
        if number is not None:
            _registered.append(self)


_registered: list[ProcessSet] = []
"""Those of the present runtime, the global one aside."""

global_process_set = ProcessSet([])
"""All ranks."""
global_process_set.process_set_id = 0


def _same_set(is_global: bool, ranks: tuple[int, ...]) -> ProcessSet:
    if is_global:
        return global_process_set
    return next((one for one in _registered if one.ranks == list(ranks)), None) or ProcessSet(ranks)


def process_set_id(process_set: ProcessSet) -> int:
    """The number of a set, for a request of this process.

    Raises:
        ValueError: the set is not registered, or this process is not in it.
    """
    if process_set is global_process_set:
        return 0
    number = process_set.process_set_id
    if number is None:
        raise ValueError(UNKNOWN)
    if not process_set.included():
        raise ValueError(
            f"Rank {runtime.current().world.rank} is not a member of the provided process set {process_set}."
        )
    return number


def add_process_set(process_set: ProcessSet | Sequence[int]) -> ProcessSet:
    """Registers a set. Every rank calls it, with the same ranks, in the same order among all such calls.

    Args:
        process_set: a set of ranks, or the ranks.

    Returns:
        The set, registered.

    Raises:
        ValueError: sets are not dynamic, such a set exists, or the ranks do not. HorovodInternalError: the calls of the
            ranks differ. NotImplementedError: the set was made of a communicator.
    """
    if not isinstance(process_set, ProcessSet):
        process_set = ProcessSet(process_set)
    if process_set.mpi_comm is not None:
        raise NotImplementedError(
            "Dynamically adding process sets defined by an MPI communicator is not implemented. "
            "Please build the process set via a list of ranks."
        )
    now = _dynamic_runtime("adding")
    ranks = tuple(process_set.ranks or ())
    process_set._register(_add(now, ranks), ranks)
    return process_set


def remove_process_set(process_set: ProcessSet) -> bool:
    """Ends a set's registration. Every rank calls it, in the same order among all such calls.

    Returns:
        Whether there is one less: not for the global set, nor for one that is not registered.

    Raises:
        ValueError: sets are not dynamic. HorovodInternalError: the calls of the ranks differ.
    """
    number = process_set.process_set_id
    if number is None or number == 0:
        return False
    now = _dynamic_runtime("removing")
    name = f"removing the process set {process_set.ranks}"
    removed = now.engine.call(lambda: now.collectives.remove_process_set(number), name)
    process_set.process_set_id = None
    if process_set in _registered:
        _registered.remove(process_set)
    return removed


def register(now: runtime.Runtime, wanted: Sequence[ProcessSet]) -> None:
    """Registers the sets that `init` was given. Collective over all ranks, even if they give none.

    Raises:
        ValueError: the ranks gave different sets, or ones of ranks that do not exist.
    """
    forget()
    given = [(one.mpi_comm is not None, _ranks_of(now, one)) for one in wanted]
    everybody = _exchange(now, (now.config.dynamic_process_sets, given))
    error = disagreement(everybody, now.world.size)
    if error:
        raise ValueError(f"rank {now.world.rank}: {error}")
    numbers: dict[tuple[int, ...], int | None] = {tuple(range(now.world.size)): None}
    for index, process_set in enumerate(wanted):
        for ranks in dict.fromkeys(sets[index][1] for _, sets in everybody):
            if ranks not in numbers:
                numbers[ranks] = _add(now, ranks)
        mine = given[index][1]
        process_set._register(numbers[mine], mine)
        numbers[mine] = None  # an equal set later in the list is a clone, and stays without a number


def registered() -> list[ProcessSet]:
    """The sets of the present runtime in the order of their registration, the global one aside."""
    return list(_registered)


def forget() -> None:
    """Ends all registrations on this rank: there is another runtime, or none."""
    for process_set in _registered:
        process_set.process_set_id = None
    _registered.clear()


def _dynamic_runtime(what: str) -> runtime.Runtime:
    now = runtime.current()
    if not now.config.dynamic_process_sets:
        raise ValueError(DYNAMIC.format(what))
    return now


def _add(now: runtime.Runtime, ranks: Sequence[int]) -> int:
    return now.engine.call(lambda: now.collectives.add_process_set(ranks), f"adding the process set {list(ranks)}")


def _ranks_of(now: runtime.Runtime, process_set: ProcessSet) -> tuple[int, ...]:
    """A set's ranks, ascending, those of a communicator as ranks of the runtime's."""
    if process_set.mpi_comm is None:
        return tuple(process_set.ranks or ())

    async def translate() -> tuple[int, ...]:
        group = process_set.mpi_comm.Get_group()
        return tuple(sorted(group.Translate_ranks(list(range(group.size)), now.comm.Get_group())))

    return now.engine.call(translate, "looking up a communicator's ranks")


def _exchange(now: runtime.Runtime, mine: object) -> list[Any]:
    result = now.submit(Request("init.process_sets", "allgather", encode_object(mine))).wait()
    assert isinstance(result.output, np.ndarray)
    return decode_objects(result.output, result.sizes)


def disagreement(everybody: Sequence[tuple[bool, list[tuple[bool, tuple[int, ...]]]]], size: int) -> str:
    """What is wrong with the sets that the ranks gave, or ""."""
    dynamic = [rank for rank, (one, _) in enumerate(everybody) if one]
    if 0 < len(dynamic) < size:
        return f"process sets are dynamic on {name_ranks(dynamic)} only; all ranks must give `init` the same"
    first = everybody[0][1]
    for rank, (_, sets) in enumerate(everybody):
        for one, (of_comm, ranks) in enumerate(sets):
            if not ranks or len(set(ranks)) < len(ranks) or not set(ranks) <= set(range(size)):
                return f"rank {rank} gave the process set {list(ranks)}, but the ranks are 0 to {size - 1}, each once"
            if not of_comm and one < len(first) and first[one] != (of_comm, ranks):
                return f"rank {rank} gave the process set {list(ranks)} where rank 0 gave {list(first[one][1])}"
        if len(sets) != len(first):
            return f"rank {rank} gave {len(sets)} process sets, rank 0 gave {len(first)}"
    return ""
