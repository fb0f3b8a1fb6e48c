"""Operations without tensors: barrier and join (Horovod's names and arguments)."""

from __future__ import annotations

from contextlib import ExitStack

from hvd_gossip import basics, runtime
from hvd_gossip.basics import ProcessSet, global_process_set, operation_name, process_set_id
from hvd_gossip.collectives import Request

from .mixing import mixing_strategies


def barrier(process_set: ProcessSet = global_process_set) -> None:
    """Returns when every rank has called it.

    Args:
        process_set: the ranks that take part.

    Raises:
        HorovodInternalError: a rank failed or has shut down.
    """
    number = process_set_id(process_set)
    name = operation_name("barrier", None, number)
    runtime.current().submit(Request(name=name, kind="barrier", process_set=number)).wait()


def join(device: int = -1) -> int:
    """Says that this rank has no more data, and returns when all ranks have said so: for ranks with unequal numbers of
    batches.

    Until then the other ranks go on: this rank counts as zeros in their allreduces, and Average divides by the number of
    all ranks (Horovod's rule). With a gossip algorithm it goes on answering its neighbours, and nobody waits for it.

    Args:
        device: as in Horovod, which makes zeros on this GPU; not needed here.

    Returns:
        The rank that joined last.

    Raises:
        HorovodInternalError: a rank failed or has shut down.
    """
    with ExitStack() as stack:
        for strategy in mixing_strategies():
            stack.enter_context(strategy.joining())
        return basics.join()
