"""Horovod, API, horovod.torch: asynchronous operations, poll and synchronize."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from tests.conformance.case import Cases, close, everybodys, numbers, ours, parts, raises, same
from tests.conformance.torch_framework import TorchFramework

CASES = Cases()


@CASES.add()
def allreduce_async_and_synchronize(f: TorchFramework) -> None:
    """API, allreduce_async: a handle to be used with poll() and synchronize(); the input is not modified."""
    for dtype in f.reduced:
        mine = ours(f, 4, dtype=dtype)
        handle = f.hvd.allreduce_async(mine, op=f.hvd.Sum)
        same(f, f.hvd.synchronize(handle), everybodys(f, 4).sum(0), dtype)
        same(f, mine, numbers(f.hvd.rank(), 4), dtype)


@CASES.add()
def after_poll_returns_true_synchronize_does_not_wait(f: TorchFramework) -> None:
    """API, poll: a flag indicating whether the operation has completed."""
    handle = f.hvd.allreduce_async(ours(f, 4), op=f.hvd.Sum)
    while not f.hvd.poll(handle):
        time.sleep(0.001)
    same(f, f.hvd.synchronize(handle), everybodys(f, 4).sum(0))


@CASES.add(ranks=2)
def poll_returns_false_while_a_rank_is_missing(f: TorchFramework) -> None:
    """API, allreduce_async: the reduction will not start until all processes are ready."""
    last = f.hvd.size() - 1
    handle = f.hvd.allreduce_async(ours(f, 4), name="late") if f.hvd.rank() != last else None
    if handle is not None:
        assert f.hvd.poll(handle) is False
    f.hvd.barrier()
    handle = handle or f.hvd.allreduce_async(ours(f, 4), name="late")
    same(f, f.hvd.synchronize(handle), everybodys(f, 4).mean(0))


@CASES.add()
def handles_are_synchronized_in_any_order(f: TorchFramework) -> None:
    """API, synchronize: waits for that operation."""
    handles = [f.hvd.allreduce_async(ours(f, i + 1), name=f"h{i}", op=f.hvd.Sum) for i in range(5)]
    for i in (3, 0, 4, 1, 2):
        same(f, f.hvd.synchronize(handles[i]), everybodys(f, i + 1).sum(0))


@CASES.add()
def every_operation_has_an_asynchronous_form(f: TorchFramework) -> None:
    """API: allgather_async, broadcast_async, alltoall_async, reducescatter_async and the grouped ones."""
    n, rank, hvd = f.hvd.size(), f.hvd.rank(), f.hvd
    everybody = everybodys(f, n)
    same(f, hvd.synchronize(hvd.allgather_async(ours(f, n))), everybody.reshape(-1))
    same(f, hvd.synchronize(hvd.broadcast_async(ours(f, n), n - 1)), everybody[n - 1])
    received = hvd.synchronize(hvd.alltoall_async(ours(f, n), splits=torch.ones(n, dtype=torch.int32)))
    same(f, received[0], everybody[:, rank])
    assert received[1].tolist() == [1] * n
    same(f, hvd.synchronize(hvd.reducescatter_async(ours(f, n), op=hvd.Sum)), everybody.sum(0)[[rank]])
    for kind, expected in (
        ("grouped_allreduce", everybody.mean(0)),
        ("grouped_allgather", everybody.reshape(-1)),
        ("grouped_reducescatter", everybody.mean(0)[parts(n, n)[rank]]),
    ):
        results = hvd.synchronize(getattr(hvd, f"{kind}_async")([ours(f, n), ours(f, n, dtype="float64")]))
        same(f, results[0], expected)
        same(f, results[1], expected, "float64")


@CASES.add(ranks=2)
def a_name_that_is_under_way_is_refused(f: TorchFramework) -> None:
    """Horovod refuses a tensor with the same name as another that is being processed; the first one goes on."""
    last = f.hvd.size() - 1
    first = None
    if f.hvd.rank() != last:
        first = f.hvd.allreduce_async(ours(f, 4), name="twice")
        with raises(ValueError, f.hvd.HorovodInternalError, about=["twice"]):
            f.hvd.synchronize(f.hvd.allreduce_async(ours(f, 4), name="twice"))
    f.hvd.barrier()
    first = first or f.hvd.allreduce_async(ours(f, 4), name="twice")
    same(f, f.hvd.synchronize(first), everybodys(f, 4).mean(0))
    same(f, f.hvd.allreduce(ours(f, 4), name="twice"), everybodys(f, 4).mean(0))


@CASES.add()
def names_of_different_operations_do_not_clash(f: TorchFramework) -> None:
    """API, name: an auto-generated name is used if none is given; so unnamed operations may be under way together."""
    handles = [f.hvd.allreduce_async(ours(f, 2), op=f.hvd.Sum) for _ in range(10)]
    for handle in handles:
        same(f, f.hvd.synchronize(handle), everybodys(f, 2).sum(0))


@CASES.add(ranks=2)
def a_mismatch_is_raised_by_synchronize(f: TorchFramework) -> None:
    """API, synchronize: HorovodInternalError for an operation that failed, on every rank; others are not disturbed."""
    good = f.hvd.allreduce_async(ours(f, 2), name="good", op=f.hvd.Sum)
    bad = f.hvd.allreduce_async(ours(f, 2 + (f.hvd.rank() == 0)), name="bad")
    with raises(f.hvd.HorovodInternalError, about=["bad"]):
        f.hvd.synchronize(bad)
    same(f, f.hvd.synchronize(good), everybodys(f, 2).sum(0))


@CASES.add(ranks=2)
def operations_that_fail_leave_those_beside_them_alone(f: TorchFramework) -> None:
    """API, synchronize: of many under way in any order, a third of which one rank submits with another type or shape."""
    last = f.hvd.rank() == f.hvd.size() - 1
    for step in range(5):
        handles = {}
        for i in np.random.default_rng([step, f.hvd.rank()]).permutation(18):
            odd = last and i % 3 == 0
            tensor = ours(f, 3 + (odd and i % 2), dtype="float64" if odd else "float32")
            handles[i] = f.hvd.allreduce_async(tensor, name=f"one of many {i}", op=f.hvd.Sum)
        for i, handle in handles.items():
            if i % 3 == 0:
                with raises(f.hvd.HorovodInternalError, about=[f"many {i}"]):
                    f.hvd.synchronize(handle)
            else:
                same(f, f.hvd.synchronize(handle), everybodys(f, 3).sum(0))


@CASES.add()
def operations_may_be_submitted_from_any_thread(f: TorchFramework) -> None:
    """API: asynchronous operations, which frameworks submit from threads of their own, in no common order."""

    def reduce(i: int) -> torch.Tensor:
        result: torch.Tensor = f.hvd.allreduce(ours(f, i + 1), name=f"of thread {i}", op=f.hvd.Sum)
        return result

    with ThreadPoolExecutor(8) as pool:
        for i, result in enumerate(pool.map(reduce, range(8))):
            same(f, result, everybodys(f, i + 1).sum(0))


@CASES.add()
def gradients_flow_through_the_use_of_results(f: TorchFramework) -> None:
    """API, allreduce: an autograd function, within a graph: the derivative of the mean of x squared over ranks."""
    x = ours(f, 3).requires_grad_()
    function: Callable[[Any], Any] = f.hvd.allreduce
    (function(x * x) * 2).sum().backward()
    close(f.numpy(x.grad), 2 * 2 * numbers(f.hvd.rank(), 3))


@CASES.add()
def a_tensor_that_needs_no_gradient_gives_none(f: TorchFramework) -> None:
    """API: gradients if the input tensor requires them."""
    assert f.hvd.allreduce(ours(f, 3)).requires_grad is False
    assert f.hvd.allgather(ours(f, 3)).requires_grad is False
