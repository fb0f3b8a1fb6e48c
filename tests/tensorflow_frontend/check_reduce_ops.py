"""Checks of allreduce and reducescatter, of one tensor and of several."""

from __future__ import annotations

import hvd_gossip.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from tests.tensorflow_frontend.tensors import (
    FLOATS,
    INTEGERS,
    MODES,
    eagerly,
    everybodys,
    in_session,
    ours,
    same,
    traced,
)


def check_allreduce_combines_in_every_mode() -> None:
    stacked = everybodys(3, 4)
    expected = {
        hvd.Average: stacked.mean(0),
        hvd.Sum: stacked.sum(0),
        hvd.Min: stacked.min(0),
        hvd.Max: stacked.max(0),
        hvd.Product: stacked.prod(0),
    }
    for run in MODES:
        results = run(lambda x: [hvd.allreduce(x, op=op) for op in expected], ours(3, 4))
        for result, value in zip(results, expected.values(), strict=True):
            same(result, value, 1e-6)
        same(run(hvd.allreduce, ours(3, 4))[0], expected[hvd.Average], 1e-6)


def check_types_and_shapes() -> None:
    for dtype in FLOATS + INTEGERS:
        same(hvd.allreduce(ours(7, dtype=dtype), op=hvd.Sum), everybodys(7).sum(0), dtype=dtype)
        same(traced(lambda x: hvd.allreduce(x, op=hvd.Sum), ours(7, dtype=dtype))[0], everybodys(7).sum(0), dtype=dtype)
    for dtype in INTEGERS:
        same(hvd.allreduce(ours(7, dtype=dtype)), everybodys(7).sum(0) // hvd.size(), dtype=dtype)
    for shape in ((), (0,), (1,), (2, 0, 3), (70_001,)):
        for run in MODES:
            same(run(lambda x: hvd.allreduce(x, op=hvd.Max), ours(*shape))[0], everybodys(*shape).max(0))


def check_the_input_is_left_alone_and_factors_scale() -> None:
    tensor = ours(20_000)
    result = hvd.allreduce(tensor, prescale_factor=0.5, postscale_factor=3.0)
    same(tensor, ours(20_000))
    same(result, everybodys(20_000).mean(0) * 1.5, 1e-6)


def check_variables_and_lists_are_tensors_too() -> None:
    variable = tf.Variable(ours(3))
    same(hvd.allreduce(variable, op=hvd.Sum), everybodys(3).sum(0))
    same(hvd.allreduce([1.0, 2.0], op=hvd.Sum), np.array([1.0, 2.0]) * hvd.size())


def check_a_result_is_nobody_elses_memory() -> None:
    """Large results are NumPy's memory: a variable that takes one over may write there."""
    results = [hvd.allreduce(ours(50_000), op=hvd.Sum, name="taken over") for _ in range(2)]
    variable = tf.Variable(results[0])
    variable.assign_add(results[1])
    variable.assign_add(tf.ones(50_000))
    total = everybodys(50_000).sum(0)
    same(variable, 2 * total + 1)
    for result in results:
        same(result, total)
    same(hvd.allreduce(variable, op=hvd.Max), 2 * total + 1)
    same(variable, 2 * total + 1)


def check_compression() -> None:
    for compression in (hvd.Compression.none, hvd.Compression.fp16, hvd.Compression.bf16):
        for run in (eagerly, traced):
            (result,) = run(lambda x, c=compression: hvd.allreduce(x, compression=c, op=hvd.Sum), ours(9))
            same(result, everybodys(9).sum(0), dtype=tf.float32)
        whole, number = hvd.grouped_allreduce([ours(9), ours(2, dtype=tf.int32)], compression=compression, op=hvd.Sum)
        same(whole, everybodys(9).sum(0), dtype=tf.float32)
        same(number, everybodys(2).sum(0), dtype=tf.int32)
    assert hvd.allreduce(tf.constant([1.0 + 2**-13]), compression=hvd.Compression.fp16).numpy()[0] == 1.0


def check_grouped_allreduce() -> None:
    def reduce(*tensors: object) -> list[object]:
        return hvd.grouped_allreduce(list(tensors), op=hvd.Sum)

    tensors = [ours(3), ours(2, 2, dtype=tf.float64), ours(4, dtype=tf.int32), ours(), ours(30_000)]
    for run in MODES:
        for result, tensor in zip(run(reduce, *tensors), tensors, strict=True):
            same(result, everybodys(*tensor.shape).sum(0), dtype=tensor.dtype)
    assert hvd.grouped_allreduce([]) == []
    (average,) = hvd.grouped_allreduce([ours(3)], name="one", prescale_factor=2.0)
    same(average, everybodys(3).mean(0) * 2, 1e-6)


def check_gradients_of_allreduce() -> None:
    for op, factor in ((hvd.Average, 1.0), (hvd.Sum, float(hvd.size()))):

        def gradient(x: object, op: int = op) -> object:
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(hvd.allreduce(x, op=op, prescale_factor=0.5) * 2.0)
            return tape.gradient(loss, x)

        for run in (eagerly, traced):
            same(run(gradient, ours(3))[0], np.full(3, factor), 1e-6)

    def in_graph(x: object) -> object:
        return tf.gradients(tf.reduce_sum(hvd.allreduce(x, op=hvd.Sum) * 3.0), x)[0]

    same(in_session(in_graph, ours(3))[0], np.full(3, 3.0 * hvd.size()))


def check_max_has_no_gradient() -> None:
    tensor = ours(3)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = tf.reduce_sum(hvd.allreduce(tensor, name="largest", op=hvd.Max))
    with pytest.raises(NotImplementedError, match=r"allreduce\.largest.*op=Average and op=Sum"):
        tape.gradient(loss, tensor)


def check_gradients_of_grouped_allreduce() -> None:
    for op, factor in ((hvd.Average, 1.0 / hvd.size()), (hvd.Sum, 1.0)):
        tensors = [ours(3), ours(2, dtype=tf.int32), ours(2, 2)]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            first, _, last = hvd.grouped_allreduce(tensors, op=op)
            loss = (hvd.rank() + 1.0) * tf.reduce_sum(first) + 3 * tf.reduce_sum(last)
        gradients = tape.gradient(loss, [tensors[0], tensors[2]])
        same(gradients[0], np.full(3, sum(range(1, hvd.size() + 1)) * factor), 1e-6)
        same(gradients[1], np.full((2, 2), 3 * hvd.size() * factor), 1e-6)


def check_second_derivatives() -> None:
    tensor = ours(3)
    with tf.GradientTape() as outer:
        outer.watch(tensor)
        with tf.GradientTape() as inner:
            inner.watch(tensor)
            loss = tf.reduce_sum(hvd.allreduce(tensor, op=hvd.Sum) ** 3)
        first = inner.gradient(loss, tensor)
    same(outer.gradient(first, tensor), 6 * everybodys(3).sum(0) * hvd.size() ** 2, 1e-6)


def check_indexed_slices_are_gathered() -> None:
    rank, n = hvd.rank(), hvd.size()
    rows = [[(r + i) % 4 for i in range(r + 1)] for r in range(n)]
    values = [np.arange(len(r) * 3, dtype=np.float32).reshape(-1, 3) + 10 * i for i, r in enumerate(rows)]
    for dtype in (tf.float32, tf.bfloat16, tf.float64):
        for op, divisor in ((hvd.Sum, 1), (hvd.Average, n)):

            def reduce(v: object, i: object, op: int = op) -> list[object]:
                slices = hvd.allreduce(tf.IndexedSlices(v, i, tf.constant([4, 3])), op=op)
                return [slices.values, slices.indices, slices.dense_shape]

            for run in (eagerly, traced):
                got = run(reduce, tf.cast(values[rank], dtype), tf.constant(rows[rank], tf.int64))
                same(got[0], np.concatenate(values) / divisor, 2e-2 if dtype == tf.bfloat16 else 1e-6, dtype)
                same(got[1], np.concatenate(rows), dtype=tf.int64)
                same(got[2], [4, 3])


def check_indexed_slices_without_rows() -> None:
    empty = tf.IndexedSlices(tf.zeros((0, 3)), tf.zeros((0,), tf.int32), tf.constant([4, 3]))
    result = hvd.allreduce(empty)
    assert result.values.shape == (0, 3)
    assert result.indices.shape == (0,)


def check_indexed_slices_know_sums_alone() -> None:
    slices = tf.IndexedSlices(tf.ones((1, 3)), tf.zeros(1, tf.int32), tf.constant([4, 3]))
    with pytest.raises(NotImplementedError, match="sparse_as_dense"):
        hvd.allreduce(slices, op=hvd.Adasum)
    with pytest.raises(NotImplementedError, match="only Sum and Average"):
        hvd.allreduce(slices, op=hvd.Max)


def check_deprecated_average() -> None:
    with pytest.warns(DeprecationWarning, match="replaced with `op`"):
        same(hvd.allreduce(ours(2), average=False), everybodys(2).sum(0))
    with pytest.raises(ValueError, match="supersedes average"):
        hvd.allreduce(ours(2), average=True, op=hvd.Sum)


def check_what_cannot_be_communicated() -> None:
    for run in MODES:
        with pytest.raises(ValueError, match="string are not supported"):
            run(hvd.allreduce, tf.constant(["a"]) if run is not in_session else np.array(["a"], object))
    with pytest.raises(ValueError, match="99"):
        hvd.allreduce(ours(2), op=99)
    with pytest.raises(ValueError, match="bool"):
        hvd.allreduce(tf.constant([True]))


def check_ranks_that_disagree_all_get_an_error() -> None:
    if hvd.size() == 1:
        return
    shape = 2 + hvd.rank() % 2
    with pytest.raises(hvd.HorovodInternalError, match=r"allreduce\.shape"):
        hvd.allreduce(ours(shape), name="shape")
    with pytest.raises(tf.errors.OpError, match=r"HorovodInternalError.*allreduce\.traced"):
        tf.function(lambda x: hvd.allreduce(x, name="traced"))(ours(shape))
    with pytest.raises(hvd.HorovodInternalError, match=r"grouped_allreduce\.whole"):
        hvd.grouped_allreduce([ours(3), ours(shape)], name="whole")
    same(hvd.allreduce(ours(2)), everybodys(2).mean(0), 1e-6)  # and go on


def check_reducescatter() -> None:
    n, rank = hvd.size(), hvd.rank()
    rows = 2 * n + 1
    starts = np.cumsum([0] + [2 + (r < 1) for r in range(n)])
    part = slice(starts[rank], starts[rank + 1])
    for run in MODES:
        for op, total in ((hvd.Average, everybodys(rows, 2).mean(0)), (hvd.Sum, everybodys(rows, 2).sum(0))):
            same(run(lambda x, op=op: hvd.reducescatter(x, op=op), ours(rows, 2))[0], total[part], 1e-6)
        first, second = run(
            lambda x, y: hvd.grouped_reducescatter([x, y], op=hvd.Sum), ours(rows, 2), ours(n, dtype=tf.int32)
        )
        same(first, everybodys(rows, 2).sum(0)[part])
        same(second, everybodys(n).sum(0)[rank : rank + 1], dtype=tf.int32)
    scaled = hvd.reducescatter(ours(rows, 2), op=hvd.Sum, postscale_factor=2.0, compression=hvd.Compression.fp16)
    same(scaled, 2 * everybodys(rows, 2).sum(0)[part], dtype=tf.float32)
    with pytest.raises(ValueError, match="Average and Sum"):
        hvd.reducescatter(ours(rows), op=hvd.Max)


def check_gradients_of_reducescatter() -> None:
    n, rank = hvd.size(), hvd.rank()
    for op, factor in ((hvd.Average, 1), (hvd.Sum, n)):

        def gradient(x: object, op: int = op) -> object:
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(hvd.reducescatter(x, op=op)) * (rank + 1.0)
            return tape.gradient(loss, x)

        for run in (eagerly, traced):
            same(run(gradient, ours(n))[0], (np.arange(n) + 1) * factor)


def check_process_sets() -> None:
    n, rank = hvd.size(), hvd.rank()
    if n == 1:
        return
    first = hvd.add_process_set(range(n - 1))
    if rank < n - 1:
        for run in MODES:
            result = run(lambda x: hvd.allreduce(x, op=hvd.Sum, process_set=first), ours(3))[0]
            same(result, everybodys(3)[: n - 1].sum(0))
    else:
        with pytest.raises(ValueError, match="not a member"):
            hvd.allreduce(ours(3), process_set=first)
    assert hvd.process_set_included_op(first.process_set_id).numpy() == (rank < n - 1)
    assert hvd.size_op(first.process_set_id).numpy() == n - 1
    hvd.remove_process_set(first)
