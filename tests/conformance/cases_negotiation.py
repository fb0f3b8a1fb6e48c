"""Horovod, "Concepts", "Tensor Fusion" and API: operations are keyed by name, and wait until all ranks submitted them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.conformance.case import Cases, everybodys, numbers, ours, raises, same
from tests.conformance.framework import Framework, Operation

CASES = Cases()


@CASES.add()
def operations_meet_by_name_in_whatever_order_ranks_submit_them(f: Framework) -> None:
    """API, allreduce: keyed by the name; it will not start until all processes are ready."""
    names = [f"tensor {i}" for i in range(10)]
    order = np.random.default_rng(f.hvd.rank()).permutation(len(names))
    options: dict[str, Any] = {"op": f.hvd.Sum}
    operations: list[Operation] = [
        ("allreduce", (f.tensor([i + f.hvd.rank()]),), {"name": names[i], **options}) for i in order
    ]
    n = f.hvd.size()
    for i, result in zip(order, f.together(operations), strict=True):
        same(f, result, [n * i + sum(range(n))])


@CASES.add()
def kinds_and_types_mix_among_what_is_submitted_at_once(f: Framework) -> None:
    """Tensor fusion: combines tensors of the same type; others go their own way, and each comes back as it is."""
    n = f.hvd.size()
    operations: list[Operation] = []
    for i, dtype in enumerate(f.reduced):
        operations += [
            ("allreduce", (ours(f, i + 1, dtype=dtype),), {"name": f"sum {dtype}", "op": f.hvd.Sum}),
            ("allgather", (ours(f, 2, dtype=dtype),), {"name": f"all {dtype}"}),
            ("broadcast", (ours(f, 3, dtype=dtype), i % n), {"name": f"root {dtype}"}),
        ]
    results = iter(f.together(operations))
    for i, dtype in enumerate(f.reduced):
        same(f, next(results), everybodys(f, i + 1).sum(0), dtype)
        same(f, next(results), everybodys(f, 2).reshape(-1), dtype)
        same(f, next(results), numbers(i % n, 3), dtype)


@CASES.add()
def hundreds_of_small_tensors_are_reduced_together(f: Framework) -> None:
    """Tensor fusion: all the tensors that are ready are combined; no value meets another's. Three steps, by name."""
    for step in range(3):
        operations: list[Operation] = [
            ("allreduce", (f.tensor(numbers(f.hvd.rank(), i % 7 + 1) + step),), {"name": f"small {i}", "op": f.hvd.Sum})
            for i in range(200)
        ]
        for i, result in enumerate(f.together(operations)):
            same(f, result, everybodys(f, i % 7 + 1).sum(0) + step * f.hvd.size())


@CASES.add()
def averages_and_scales_of_tensors_in_one_batch_stay_apart(f: Framework) -> None:
    """Tensor fusion: with other operations and factors tensors are other reductions."""
    options: list[dict[str, Any]] = [
        {"op": f.hvd.Average},
        {"op": f.hvd.Sum, "prescale_factor": 2.0},
        {"op": f.hvd.Max},
        {"op": f.hvd.Sum, "postscale_factor": 0.5},
    ]
    operations: list[Operation] = [
        ("allreduce", (ours(f, 3),), {"name": f"apart {i}", **some}) for i, some in enumerate(options)
    ]
    everybody = everybodys(f, 3)
    expected = (everybody.mean(0), everybody.sum(0) * 2, everybody.max(0), everybody.sum(0) / 2)
    for result, wanted in zip(f.together(operations), expected, strict=True):
        same(f, result, wanted)


@CASES.add()
def names_are_any_text(f: Framework) -> None:
    """API, name: a name of the operation, such as a framework gives its variables."""
    for name in ("a/b:0", "with spaces, and (more)", "ünïcödé", "n" * 500, "0"):
        same(f, f.hvd.allreduce(ours(f, 3), name=name, op=f.hvd.Sum), everybodys(f, 3).sum(0))


def _refused(f: Framework, operation: Callable[[], object], *about: str) -> None:
    """Asserts that it fails on this rank, and that the next operation works; all ranks call this."""
    with raises(*f.errors, about=about):
        operation()
    same(f, f.hvd.allreduce(ours(f, 3), op=f.hvd.Sum), everybodys(f, 3).sum(0))


@CASES.add(ranks=2)
def mismatched_shapes_fail_on_every_rank(f: Framework) -> None:
    """API, allreduce: the tensor type and shape must be the same on all processes for a given name."""
    odd = f.hvd.rank() == f.hvd.size() - 1
    _refused(f, lambda: f.hvd.allreduce(ours(f, 4 + odd), name="shapes"), "shapes", "shape")
    _refused(f, lambda: f.hvd.broadcast(ours(f, 4 + odd), 0, name="shapes"), "shape")
    _refused(f, lambda: f.hvd.reducescatter(ours(f, 4 + odd, 2), name="shapes"), "shape")


@CASES.add(ranks=2)
def mismatched_numbers_of_dimensions_fail_on_every_rank(f: Framework) -> None:
    """API: the input tensors must have the same rank and shape."""
    tensor = ours(f, 4) if f.hvd.rank() else ours(f, 2, 2)
    _refused(f, lambda: f.hvd.allreduce(tensor, name="dimensions"), "dimensions")
    _refused(f, lambda: f.hvd.allgather(tensor, name="dimensions"), "dimensions")


@CASES.add(ranks=2)
def mismatched_later_dimensions_fail_on_every_rank(f: Framework) -> None:
    """API, allgather, alltoall: the same shape, except for the first dimension."""
    n, odd = f.hvd.size(), f.hvd.rank() == 0
    _refused(f, lambda: f.hvd.allgather(ours(f, 2, 3 + odd), name="columns"), "columns")
    _refused(f, lambda: f.hvd.alltoall(ours(f, n, 3 + odd), name="columns"), "columns")


@CASES.add(ranks=2)
def mismatched_types_fail_on_every_rank(f: Framework) -> None:
    """API: the tensor type must be the same on all processes for a given name."""
    dtype = "float32" if f.hvd.rank() else "int32"
    tensor = ours(f, 4, dtype=dtype)
    _refused(f, lambda: f.hvd.allreduce(tensor, name="types"), "types")
    _refused(f, lambda: f.hvd.allgather(tensor, name="types"), "types")
    _refused(f, lambda: f.hvd.broadcast(tensor, 0, name="types"), "types")


@CASES.add()
def operations_of_different_kinds_may_have_one_name(f: Framework) -> None:
    """API, name: the name of an allreduce, of an allgather...; each is keyed by its name among its kind."""
    operations: list[Operation] = [
        ("allreduce", (ours(f, 4),), {"name": "shared", "op": f.hvd.Sum}),
        ("allgather", (ours(f, 4),), {"name": "shared"}),
        ("broadcast", (ours(f, 4), 0), {"name": "shared"}),
    ]
    total, everybodys_rows, root = f.together(operations[:: 1 - 2 * (f.hvd.rank() % 2)])[:: 1 - 2 * (f.hvd.rank() % 2)]
    same(f, total, everybodys(f, 4).sum(0))
    same(f, everybodys_rows, everybodys(f, 4).reshape(-1))
    same(f, root, numbers(0, 4))


@CASES.add(ranks=2)
def mismatched_reductions_fail_on_every_rank(f: Framework) -> None:
    """API, op: the reduction to combine tensors across different ranks."""
    op = f.hvd.Sum if f.hvd.rank() else f.hvd.Max
    _refused(f, lambda: f.hvd.allreduce(ours(f, 4), name="ops", op=op), "ops")


@CASES.add(ranks=2)
def mismatched_factors_fail_on_every_rank(f: Framework) -> None:
    """API, prescale_factor, postscale_factor: one factor for the operation."""
    factor = 1.0 + f.hvd.rank()
    _refused(f, lambda: f.hvd.allreduce(ours(f, 4), name="before", prescale_factor=factor), "before")
    _refused(f, lambda: f.hvd.allreduce(ours(f, 4), name="after", postscale_factor=factor), "after")


@CASES.add(ranks=2)
def mismatched_root_ranks_fail_on_every_rank(f: Framework) -> None:
    """API, broadcast, root_rank: the rank to broadcast the value from, one for all."""
    _refused(f, lambda: f.hvd.broadcast(ours(f, 4), min(f.hvd.rank(), 1), name="roots"), "roots", "root")


@CASES.add()
def a_root_rank_that_is_not_there_is_refused(f: Framework) -> None:
    """API, broadcast, root_rank: the rank of a process."""
    for root in (f.hvd.size(), -1):
        with raises(ValueError, *f.errors):
            f.hvd.broadcast(ours(f, 4), root)
    same(f, f.hvd.broadcast(ours(f, 4), 0), numbers(0, 4))


@CASES.add(ranks=2)
def a_mismatch_after_a_step_that_matched_fails_too(f: Framework) -> None:
    """API, allreduce: by name, step by step; what was agreed on once does not excuse a mismatch later."""
    for _ in range(3):
        f.hvd.allreduce(ours(f, 4), name="cached")
    odd = f.hvd.rank() == 0
    _refused(f, lambda: f.hvd.allreduce(ours(f, 4 + odd), name="cached"), "cached")
    same(f, f.hvd.allreduce(ours(f, 4), name="cached", op=f.hvd.Sum), everybodys(f, 4).sum(0))


@CASES.add(ranks=2)
def a_group_with_one_mismatch_fails_on_every_rank(f: Framework) -> None:
    """API, grouped_allreduce: type and shape must be the same for tensors sharing positions."""
    odd = f.hvd.rank() == 0
    _refused(f, lambda: f.hvd.grouped_allreduce([ours(f, 3), ours(f, 4 + odd)], name="group"))


@CASES.add()
def the_gathering_of_scalars_is_refused(f: Framework) -> None:
    """API, allgather, alltoall, reducescatter: along the first dimension, which a scalar has not."""
    scalar = f.tensor(1.0)
    for kind in ("allgather", "alltoall", "reducescatter"):
        with raises(ValueError, IndexError, *f.errors):
            getattr(f.hvd, kind)(scalar)
    same(f, f.hvd.allreduce(ours(f, 3)), everybodys(f, 3).mean(0))


@CASES.add()
def barrier_returns_when_all_have_come(f: Framework) -> None:
    """API, barrier: ranks that reach it stall until all others have."""
    n = f.hvd.size()
    with tempfile.TemporaryDirectory() as mine:
        folder = Path(f.hvd.broadcast_object(mine))
        for step in range(3):
            (folder / f"{step} {f.hvd.rank()}").touch()
            assert f.hvd.barrier() is None
            assert all((folder / f"{step} {rank}").exists() for rank in range(n))
        f.hvd.barrier()
