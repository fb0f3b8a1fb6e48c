"""Horovod, API, allreduce and grouped_allreduce."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.conformance.case import FLOATS, INTEGERS, Array, Cases, close, everybodys, numbers, ours, raises, same
from tests.conformance.framework import Framework

CASES = Cases()


@CASES.add()
def allreduce_averages_by_default(f: Framework) -> None:
    """API, allreduce, op: defaults to Average."""
    same(f, f.hvd.allreduce(ours(f, 3, 4)), everybodys(f, 3, 4).mean(0))


@CASES.add()
def allreduce_sums_every_type(f: Framework) -> None:
    """API, allreduce, op=Sum, and the tensor's type is kept."""
    for dtype in f.reduced:
        same(f, f.hvd.allreduce(ours(f, 7, dtype=dtype), op=f.hvd.Sum), everybodys(f, 7).sum(0), dtype)


@CASES.add()
def allreduce_averages_every_float_type(f: Framework) -> None:
    """API, allreduce, op=Average: a tensor of the same type, averaged."""
    for dtype in FLOATS:
        same(f, f.hvd.allreduce(ours(f, 7, dtype=dtype), op=f.hvd.Average), everybodys(f, 7).mean(0), dtype)


@CASES.add()
def allreduce_averages_every_integer_type(f: Framework) -> None:
    """API, allreduce, op=Average: a tensor of the same type; here the averages are whole numbers."""
    n = f.hvd.size()
    for dtype in INTEGERS:
        mine = f.tensor(n * numbers(f.hvd.rank(), 7, below=3), dtype)
        same(f, f.hvd.allreduce(mine, op=f.hvd.Average), everybodys(f, 7, below=3).sum(0), dtype)


@CASES.add()
def allreduce_minimum_maximum_product_of_every_type(f: Framework) -> None:
    """API, allreduce, op: Min, Max and Product."""
    all_ranks = everybodys(f, 7, below=3)
    for dtype in f.reduced:
        mine = ours(f, 7, dtype=dtype, below=3)
        same(f, f.hvd.allreduce(mine, op=f.hvd.Min), all_ranks.min(0), dtype)
        same(f, f.hvd.allreduce(mine, op=f.hvd.Max), all_ranks.max(0), dtype)
        same(f, f.hvd.allreduce(mine, op=f.hvd.Product), all_ranks.prod(0), dtype)


@CASES.add()
def allreduce_of_negative_numbers(f: Framework) -> None:
    """API, allreduce: minimum, maximum and sum of signed numbers."""
    all_ranks = everybodys(f, 7) - 3
    for dtype in ("float32", "int8", "int64"):
        mine = f.tensor(numbers(f.hvd.rank(), 7) - 3, dtype)
        same(f, f.hvd.allreduce(mine, op=f.hvd.Sum), all_ranks.sum(0), dtype)
        same(f, f.hvd.allreduce(mine, op=f.hvd.Min), all_ranks.min(0), dtype)
        same(f, f.hvd.allreduce(mine, op=f.hvd.Max), all_ranks.max(0), dtype)


@CASES.add()
def allreduce_does_not_change_its_input(f: Framework) -> None:
    """API, allreduce: the input tensor is not modified."""
    mine = ours(f, 5)
    f.hvd.allreduce(mine, op=f.hvd.Sum)
    same(f, mine, numbers(f.hvd.rank(), 5))


@CASES.add()
def allreduce_of_a_scalar_is_a_scalar(f: Framework) -> None:
    """API, allreduce: a tensor of the same shape, which may be ()."""
    result = f.hvd.allreduce(f.tensor(f.hvd.rank() + 1.0), op=f.hvd.Sum)
    same(f, result, sum(range(1, f.hvd.size() + 1)))


@CASES.add()
def allreduce_of_nothing_is_nothing(f: Framework) -> None:
    """API, allreduce: a tensor of the same shape, which may be empty."""
    same(f, f.hvd.allreduce(f.tensor(np.zeros((0, 3)))), np.zeros((0, 3)))


@CASES.add()
def allreduce_of_many_dimensions(f: Framework) -> None:
    """API, allreduce: a tensor of the same shape."""
    same(f, f.hvd.allreduce(ours(f, 2, 3, 1, 2, 3), op=f.hvd.Sum), everybodys(f, 2, 3, 1, 2, 3).sum(0))


@CASES.add()
def allreduce_of_a_strided_tensor(f: Framework) -> None:
    """API, allreduce: what counts is the tensor, not how it lies in memory."""
    same(f, f.hvd.allreduce(f.strided(numbers(f.hvd.rank(), 3, 4)), op=f.hvd.Sum), everybodys(f, 3, 4).sum(0))


@CASES.add()
def allreduce_of_a_large_tensor(f: Framework) -> None:
    """API, allreduce: of more elements than any chunk; an odd number of them."""
    size = 700_001
    same(f, f.hvd.allreduce(ours(f, size), op=f.hvd.Sum), everybodys(f, size).sum(0))


@CASES.add()
def allreduce_scales_before_and_after(f: Framework) -> None:
    """API, allreduce, prescale_factor and postscale_factor: factors before and after the reduction."""
    total = everybodys(f, 6).sum(0)
    for dtype in FLOATS:
        result = f.hvd.allreduce(ours(f, 6, dtype=dtype), op=f.hvd.Sum, prescale_factor=0.5, postscale_factor=3.0)
        same(f, result, total * 1.5, dtype)
    result = f.hvd.allreduce(ours(f, 6), op=f.hvd.Average, prescale_factor=2.0, postscale_factor=0.25)
    same(f, result, total / f.hvd.size() * 0.5)


@CASES.add()
def allreduce_scales_before_it_adds(f: Framework) -> None:
    """API, allreduce, prescale_factor: multiplied before allreduce, so that a sum of half precision does not overflow."""
    n = f.hvd.size()
    mine = f.tensor(np.full(5, 40_000.0), "float16")
    same(f, f.hvd.allreduce(mine, op=f.hvd.Sum, prescale_factor=1 / n), np.full(5, 40_000.0), "float16")


@CASES.add()
def allreduce_keeps_what_is_not_a_number(f: Framework) -> None:
    """API, allreduce: a sum; loss scaling finds infinite gradients on all ranks by it."""
    rank, last = f.hvd.rank(), f.hvd.size() - 1
    mine = f.tensor([np.nan if rank == 0 else 1.0, np.inf if rank == last else 1.0, 1.0])
    for op in (f.hvd.Sum, f.hvd.Average):
        result = f.numpy(f.hvd.allreduce(mine, op=op))
        assert np.isnan(result[0])
        assert np.isposinf(result[1])
        assert np.isfinite(result[2])


@CASES.add()
def allreduce_of_large_integers_is_exact(f: Framework) -> None:
    """API, allreduce: in the tensor's type, which is no float."""
    n, large = f.hvd.size(), 2**60
    mine = f.tensor(np.array([large + f.hvd.rank(), -large]), "int64")
    total, most = f.hvd.allreduce(mine, op=f.hvd.Sum), f.hvd.allreduce(mine, op=f.hvd.Max)
    assert f.numpy(total).tolist() == [n * large + n * (n - 1) // 2, -n * large]
    assert f.numpy(most).tolist() == [large + n - 1, -large]


@CASES.add()
def allreduce_of_doubles_keeps_their_digits(f: Framework) -> None:
    """API, allreduce: in the tensor's type, which is not float32."""
    everybody = np.random.default_rng(0).standard_normal((f.hvd.size(), 9))
    same(f, f.hvd.allreduce(f.tensor(everybody[f.hvd.rank()], "float64")), everybody.mean(0), "float64")


@CASES.add()
def allreduce_gives_the_same_bits_on_every_rank(f: Framework) -> None:
    """Concepts: distributes results back; workers that began alike stay alike, to the last bit."""
    random = np.random.default_rng(f.hvd.rank())
    for size in (1, 3, 1000, 30_001, 300_001):
        for dtype in ("float32", "float16"):
            for op in (f.hvd.Sum, f.hvd.Average):
                result = f.numpy(f.hvd.allreduce(f.tensor(random.standard_normal(size), dtype), op=op))
                assert len(set(f.hvd.allgather_object(result.tobytes()))) == 1, (size, dtype)


@CASES.add()
def allreduce_average_false_is_a_sum(f: Framework) -> None:
    """API, allreduce, average: deprecated, replaced by op; False sums, True averages."""
    with f.tolerate_deprecated():
        same(f, f.hvd.allreduce(ours(f, 4), average=False), everybodys(f, 4).sum(0))
        same(f, f.hvd.allreduce(ours(f, 4), average=True), everybodys(f, 4).mean(0))


@CASES.add()
def allreduce_average_and_op_exclude_each_other(f: Framework) -> None:
    """API, allreduce, average: use op instead, not both."""
    with f.tolerate_deprecated(), raises(ValueError):
        f.hvd.allreduce(ours(f, 4), average=True, op=f.hvd.Sum)


@CASES.add()
def allreduce_compressed_comes_back_in_its_own_type(f: Framework) -> None:
    """API, allreduce, compression: reduces the data sent; a tensor of the same type comes back."""
    for dtype in ("float32", "float64"):
        result = f.hvd.allreduce(ours(f, 6, dtype=dtype), op=f.hvd.Sum, compression=f.hvd.Compression.fp16)
        same(f, result, everybodys(f, 6).sum(0), dtype)
    result = f.hvd.allreduce(ours(f, 6, dtype="int32"), op=f.hvd.Sum, compression=f.hvd.Compression.fp16)
    same(f, result, everybodys(f, 6).sum(0), "int32")


@CASES.add()
def allreduce_repeated_by_name_gives_each_time_the_new_values(f: Framework) -> None:
    """API, allreduce, name: keyed by the name, which a training loop repeats step by step."""
    for step in range(12):
        result = f.hvd.allreduce(f.tensor([f.hvd.rank() + step, step]), name="repeated", op=f.hvd.Sum)
        n = f.hvd.size()
        same(f, result, [sum(range(n)) + n * step, n * step])


@CASES.add()
def allreduce_of_a_name_may_change_its_shape_between_steps(f: Framework) -> None:
    """API, allreduce, name: type and shape are the same on all processes, not at all times."""
    for size, dtype in ((3, "float32"), (5, "float32"), (5, "int64"), (3, "float32")):
        result = f.hvd.allreduce(ours(f, size, dtype=dtype), name="changing", op=f.hvd.Sum)
        same(f, result, everybodys(f, size).sum(0), dtype)


@CASES.add()
def allreduce_gradient_is_reduced_the_same_way(f: Framework) -> None:
    """API, allreduce: allows gradients to be computed and backpropagated."""
    upstream = everybodys(f, 4) + 1
    for op, expected in ((f.hvd.Average, upstream.mean(0)), (f.hvd.Sum, upstream.sum(0))):
        close(_gradient(f, upstream, op=op), expected)


@CASES.add()
def allreduce_gradient_is_scaled_too(f: Framework) -> None:
    """API, allreduce: gradients through prescale_factor and postscale_factor."""
    upstream = everybodys(f, 4) + 1
    close(_gradient(f, upstream, op=f.hvd.Sum, prescale_factor=0.5, postscale_factor=3.0), upstream.sum(0) * 1.5)


def _gradient(f: Framework, upstream: Array, **options: Any) -> Array:
    mine = upstream[f.hvd.rank()]
    return f.gradients(lambda tensors: [f.hvd.allreduce(tensors[0], **options)], [np.ones(4)], [mine])[0]


@CASES.add()
def grouped_allreduce_reduces_tensor_by_tensor(f: Framework) -> None:
    """API, grouped_allreduce: a list of tensors of the same shapes and types, in the same positions."""
    shapes = ((3,), (2, 2), (), (0, 2))
    results = f.hvd.grouped_allreduce([ours(f, *shape) for shape in shapes])
    assert len(results) == len(shapes)
    for shape, result in zip(shapes, results, strict=True):
        same(f, result, everybodys(f, *shape).mean(0))


@CASES.add()
def grouped_allreduce_of_every_type_and_operation(f: Framework) -> None:
    """API, grouped_allreduce, op."""
    for dtype in f.reduced:
        for op, reduced in (("Sum", np.sum), ("Min", np.min), ("Max", np.max), ("Product", np.prod)):
            mine = [ours(f, 3, dtype=dtype, below=3), ours(f, 2, 2, dtype=dtype, below=3)]
            first, second = f.hvd.grouped_allreduce(mine, op=getattr(f.hvd, op))
            same(f, first, reduced(everybodys(f, 3, below=3), axis=0), dtype)
            same(f, second, reduced(everybodys(f, 2, 2, below=3), axis=0), dtype)


@CASES.add()
def grouped_allreduce_scales_and_compresses(f: Framework) -> None:
    """API, grouped_allreduce, prescale_factor, postscale_factor, compression."""
    options = {"op": f.hvd.Sum, "prescale_factor": 0.5, "postscale_factor": 3.0}
    results = f.hvd.grouped_allreduce([ours(f, 3), ours(f, 2)], compression=f.hvd.Compression.fp16, **options)
    same(f, results[0], everybodys(f, 3).sum(0) * 1.5)
    same(f, results[1], everybodys(f, 2).sum(0) * 1.5)


@CASES.add()
def grouped_allreduce_gradient_is_reduced_the_same_way(f: Framework) -> None:
    """API, grouped_allreduce: allows gradients to be computed and backpropagated."""
    three, two = everybodys(f, 3) + 1, everybodys(f, 2) + 2
    gradients = f.gradients(
        lambda tensors: list(f.hvd.grouped_allreduce(tensors, op=f.hvd.Sum)),
        [np.ones(3), np.ones(2)],
        [three[f.hvd.rank()], two[f.hvd.rank()]],
    )
    close(gradients[0], three.sum(0))
    close(gradients[1], two.sum(0))


@CASES.add()
def grouped_allreduce_gives_the_same_bits_every_time(f: Framework) -> None:
    """Horovod's changes, 0.21: grouped allreduce, for deterministic training."""
    random = np.random.default_rng(f.hvd.rank())
    mine = [f.tensor(random.standard_normal(size)) for size in (5, 4000, 17, 70_000)]
    results = set()
    for _ in range(3):
        outputs = f.hvd.grouped_allreduce(mine, name="deterministic")
        results.add(b"".join(f.numpy(output).tobytes() for output in outputs))
    assert len(results) == 1
    assert len(set(f.hvd.allgather_object(results.pop()))) == 1
