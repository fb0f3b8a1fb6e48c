"""Ranks and sizes as operations of a graph, barrier and join (Horovod's names and arguments).

What `rank()` and its like return is fixed when a graph is made; the operations ask whenever they run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import tensorflow as tf

from hvd_gossip import basics, runtime
from hvd_gossip.basics import ProcessSet, global_process_set, operation_name, process_set_id
from hvd_gossip.collectives import Request

from .crossing import cross, cross_for_effect
from .mixing import mixing_strategies


def size_op(process_set_id: int = 0, name: str | None = None) -> Any:
    """The number of ranks in a process set, int32.

    Args:
        process_set_id: the number of the set; 0 is all ranks. (So for `process_set_included_op`.)
        name: of the operation in a graph. (So for all functions here.)
    """
    return _number(lambda: len(_ranks_of(process_set_id)), name or "HorovodSize")


def rank_op(name: str | None = None) -> Any:
    """This process's rank, int32."""
    return _number(basics.rank, name or "HorovodRank")


def local_size_op(name: str | None = None) -> Any:
    """Number of processes on this host, int32."""
    return _number(basics.local_size, name or "HorovodLocalSize")


def local_rank_op(name: str | None = None) -> Any:
    """Position of this process among those of its host, int32."""
    return _number(basics.local_rank, name or "HorovodLocalRank")


def process_set_included_op(process_set_id: int = 0, name: str | None = None) -> Any:
    """1 if this process is in the process set, else 0; int32."""
    return _number(lambda: int(basics.rank() in _ranks_of(process_set_id)), name or "HorovodProcessSetIncluded")


def barrier(process_set: ProcessSet = global_process_set, name: str | None = None) -> Any:
    """Waits until every rank has called it; in a graph it is an operation that does so when it runs.

    Args:
        process_set: the ranks that take part.
        name: names the operation.

    Raises:
        HorovodInternalError: a rank failed or has shut down.
    """
    number = process_set_id(process_set)
    eager = tf.executing_eagerly()

    def wait() -> None:
        own = operation_name("barrier", None if eager and name is None else name or "HorovodBarrier", number)
        runtime.current().submit(Request(name=own, kind="barrier", process_set=number)).wait()

    return cross_for_effect(wait, name or "HorovodBarrier")


def join() -> Any:
    """Says that this rank has no more data, and returns when all ranks have said so: for ranks with unequal numbers of
    batches.

    Until then the other ranks go on: this rank counts as zeros in their allreduces, and Average divides by the number of
    all ranks (Horovod's rule). With a gossip algorithm it goes on answering its neighbours, and nobody waits for it.

    Returns:
        The rank that joined last: a scalar tensor, int32.

    Raises:
        HorovodInternalError: a rank failed or has shut down.
    """
    return _number(_join, "HorovodJoin")


def _join() -> int:
    with ExitStack() as stack:
        for strategy in mixing_strategies():
            stack.enter_context(strategy.joining())
        return basics.join()


def _number(ask: Callable[[], int], name: str) -> Any:
    (number,) = cross(lambda _: [np.array(ask(), np.int32)], [], [tf.TensorSpec([], tf.int32)], name)
    return number


def _ranks_of(number: int) -> tuple[int, ...]:
    return tuple(runtime.current().collectives.ranks_of(number))
