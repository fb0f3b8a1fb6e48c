"""Checks of allgather, broadcast and alltoall."""

from __future__ import annotations

import hvd_gossip.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from tests.tensorflow_frontend.tensors import FLOATS, INTEGERS, MODES, Array, eagerly, everybodys, ours, same, traced


def rows_of(rank: int) -> Array:
    """A rank's rows: as many as no other rank has."""
    return np.arange((rank + 1) * 2, dtype=np.float32).reshape(rank + 1, 2) + 100 * rank


def check_allgather_joins_uneven_rows_in_every_mode() -> None:
    expected = np.concatenate([rows_of(rank) for rank in range(hvd.size())])
    for run in MODES:
        same(run(hvd.allgather, rows_of(hvd.rank()))[0], expected)
    for dtype in (*FLOATS, *INTEGERS, tf.bool):
        expected = tf.cast(everybodys(3).reshape(-1), dtype)
        same(hvd.allgather(ours(3, dtype=dtype)), expected, dtype=dtype)
        same(traced(hvd.allgather, ours(3, dtype=dtype))[0], expected, dtype=dtype)


def check_shapes_that_are_not_known_yet() -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec(None)])
    def gather(x: object, y: object) -> object:
        joined = hvd.allgather(x)
        assert joined.shape.as_list() == [None, 2]
        return joined, hvd.allgather(y), hvd.allreduce(y, op=hvd.Sum)

    for _ in range(2):
        joined, other, total = gather(rows_of(hvd.rank()), ours(2, 2))
        same(joined, np.concatenate([rows_of(rank) for rank in range(hvd.size())]))
        same(other, everybodys(2, 2).reshape(-1, 2))
        same(total, everybodys(2, 2).sum(0))


def check_a_scalar_cannot_be_gathered() -> None:
    with pytest.raises(ValueError, match="rank-zero"):
        hvd.allgather(tf.constant(1.0))
    same(hvd.allgather(ours(1)), everybodys(1).reshape(-1))


def check_grouped_allgather() -> None:
    for run in MODES:
        first, second = run(lambda x, y: hvd.grouped_allgather([x, y]), rows_of(hvd.rank()), ours(2, dtype=tf.int32))
        same(first, np.concatenate([rows_of(rank) for rank in range(hvd.size())]))
        same(second, everybodys(2).reshape(-1), dtype=tf.int32)
    assert hvd.grouped_allgather([]) == []


def check_gradients_of_allgather() -> None:
    n, rank = hvd.size(), hvd.rank()
    total = sum(r + 1 for r in range(n))

    def gradient(x: object) -> object:
        with tf.GradientTape() as tape:
            tape.watch(x)
            weights = tf.range(total, dtype=tf.float32)[:, tf.newaxis] * (rank + 1.0)
            loss = tf.reduce_sum(hvd.allgather(x) * weights)
        return tape.gradient(loss, x)

    start = sum(r + 1 for r in range(rank))
    own = np.arange(start, start + rank + 1)[:, None] * np.mean([r + 1.0 for r in range(n)]) * np.ones(2)
    for run in (eagerly, traced):
        same(run(gradient, rows_of(rank))[0], own, 1e-6)


def check_broadcast_in_every_mode() -> None:
    root = hvd.size() - 1
    for run in MODES:
        same(run(lambda x: hvd.broadcast(x, root), ours(3, 2))[0], ours(3, 2, rank=root))
    for dtype in (*FLOATS, *INTEGERS, tf.bool):
        same(hvd.broadcast(ours(3, dtype=dtype), 0), ours(3, dtype=dtype, rank=0), dtype=dtype)
    with pytest.raises(ValueError, match="root rank 99"):
        hvd.broadcast(ours(3), 99)


def check_gradients_of_broadcast() -> None:
    def gradient(x: object) -> object:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(hvd.broadcast(x, 0)) * (hvd.rank() + 1.0)
        return tape.gradient(loss, x)

    average = np.mean([rank + 1.0 for rank in range(hvd.size())])
    for run in (eagerly, traced):
        same(run(gradient, ours(3))[0], np.full(3, average if hvd.rank() == 0 else 0.0), 1e-6)


def check_alltoall_of_equal_slices() -> None:
    n, rank = hvd.size(), hvd.rank()
    own = np.arange(2 * n) + 100 * rank
    expected = np.concatenate([np.arange(2 * rank, 2 * rank + 2) + 100 * r for r in range(n)])
    for run in MODES:
        (result,) = run(hvd.alltoall, own)
        same(result, expected)
    if n > 1:
        with pytest.raises(hvd.HorovodInternalError):
            hvd.alltoall(np.arange(2 * n + 1), name="indivisible")


def check_alltoall_with_splits() -> None:
    n, rank = hvd.size(), hvd.rank()
    splits = [(rank + r) % 3 for r in range(n)]
    own = np.arange(sum(splits) + 2, dtype=np.float32) + 100 * rank  # two rows go nowhere
    expected = []
    for r in range(n):
        theirs = [(r + other) % 3 for other in range(n)]
        start = sum(theirs[:rank])
        expected.append(np.arange(start, start + theirs[rank], dtype=np.float32) + 100 * r)
    for run in MODES:
        result, received = run(lambda x, s: hvd.alltoall(x, splits=s), own, np.array(splits))
        same(result, np.concatenate(expected))
        same(received, [len(part) for part in expected], dtype=tf.int32)
    with pytest.raises(ValueError, match="integer"):
        hvd.alltoall(own, splits=[1.0] * n)
    with pytest.raises(ValueError, match="1D"):
        hvd.alltoall(own, splits=[[1] * n])


def check_gradients_of_alltoall() -> None:
    n, rank = hvd.size(), hvd.rank()
    splits = [r + 1 for r in range(n)]

    def gradient(x: object) -> object:
        with tf.GradientTape() as tape:
            tape.watch(x)
            output, _ = hvd.alltoall(x, splits=splits)
            loss = tf.reduce_sum(output) * (rank + 1.0)
        return tape.gradient(loss, x)

    rows = sum(splits) + 1
    expected = np.concatenate([np.repeat(np.arange(n) + 1.0, splits), [0.0]])[:, None] * np.ones(2)
    for run in (eagerly, traced):
        same(run(gradient, ours(rows, 2))[0], expected)


def check_join_and_barrier() -> None:
    hvd.barrier()

    @tf.function
    def meet() -> object:
        hvd.barrier()
        return tf.constant(1)

    assert meet().numpy() == 1
    for _ in range(2 + hvd.rank()):
        hvd.allreduce(ours(3), name="until joined", op=hvd.Sum)
    assert hvd.join().numpy() in range(hvd.size())
    same(hvd.allreduce(ours(2), op=hvd.Sum), everybodys(2).sum(0))


def check_ranks_as_operations() -> None:
    def ask() -> list[object]:
        return [hvd.rank_op(), hvd.size_op(), hvd.local_rank_op(), hvd.local_size_op(), hvd.process_set_included_op()]

    expected = [hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), 1]
    for run in MODES:
        assert [int(value) for value in run(ask)] == expected
