"""Crossings in graphs of tf.compat.v1, where nothing says in which order a session runs independent operations.

An operation that blocked would keep a thread of the session's pool, and the peers' sessions might wait for one that this
pool has no thread left to start. So it is started by one `tf.numpy_function`, waited for a few milliseconds at a time by a
loop, between whose rounds the pool runs other operations, and fetched by a third.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import tensorflow as tf

from .arrays import Array

ROUND = 0.005
"""Seconds that a thread of the session's pool waits before it looks for other work."""
MOST = 1024
"""So many operations can be under way at once. Threads are started as they are needed."""

_threads = ThreadPoolExecutor(MOST, thread_name_prefix="hvd-session")
_under_way: dict[int, Future[Sequence[Array]]] = {}
_tickets = itertools.count()


def cross_in_rounds(
    run: Callable[[list[Array]], Sequence[Array]], tensors: Sequence[Any], types: Sequence[Any], name: str
) -> list[Any]:
    """Results of a blocking function of arrays, as tensors of these types; no thread of the session's is kept waiting.

    Args:
        run: called on a thread of its own. TensorFlow keeps the inputs' memory as long as there are arrays of it.
        name: that TensorFlow allows.
    """

    def start(*arrays: Any) -> np.int64:
        ticket = next(_tickets)
        _under_way[ticket] = _threads.submit(run, [np.asarray(array) for array in arrays])
        return np.int64(ticket)

    ticket = tf.numpy_function(start, list(tensors), tf.int64, name=name)
    ticket.set_shape([])

    def wait_a_round(_: Any) -> Any:
        done = tf.numpy_function(_is_done, [ticket], tf.bool, name=f"{name}_wait")
        done.set_shape([])
        return done

    loop = tf.while_loop(tf.logical_not, wait_a_round, [tf.constant(False)], parallel_iterations=1, name=f"{name}_loop")
    with tf.control_dependencies(tf.nest.flatten(loop)):
        results = tf.numpy_function(_fetch, [ticket], list(types), name=f"{name}_fetch")
    return list(results)


def _is_done(ticket: Any) -> np.bool_:
    done, _ = wait([_under_way[int(ticket)]], ROUND)
    return np.bool_(bool(done))


def _fetch(ticket: Any) -> list[Array]:
    return list(_under_way.pop(int(ticket)).result())
