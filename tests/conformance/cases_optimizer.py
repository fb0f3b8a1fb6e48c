"""Horovod, API, DistributedOptimizer: what it makes of gradients, in every framework."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.conformance.case import Array, Cases, close, numbers
from tests.conformance.framework import Framework

CASES = Cases()
RATE = 0.5
SHAPES = ((3,), (2, 2), (1,))


def _everybodys_passes(f: Framework, passes: int = 1) -> list[list[list[Array]]]:
    """[rank][backward pass][variable]: gradients."""
    return [
        [[numbers(rank + 2 * i, *shape) + rank for shape in SHAPES] for i in range(passes)]
        for rank in range(f.hvd.size())
    ]


def _after(f: Framework, steps: int = 1, passes: int = 1, **options: Any) -> list[Array]:
    """The variables, ones at first, after steps with these options."""
    variables = f.variables([np.ones(shape) for shape in SHAPES])
    step = f.optimizer(variables, RATE, **options)
    for _ in range(steps):
        step(_everybodys_passes(f, passes)[f.hvd.rank()])
    return [f.numpy(variable) for variable in variables]


def _expected(
    f: Framework, factor: float, steps: int = 1, passes: int = 1, ranks: list[int] | None = None
) -> list[Array]:
    """The variables after steps along `factor` times the sum of the gradients of these ranks (of all)."""
    some = [_everybodys_passes(f, passes)[rank] for rank in (ranks or range(f.hvd.size()))]
    totals = [sum(mine[i][v] for mine in some for i in range(passes)) for v in range(len(SHAPES))]
    return [np.ones(shape) - RATE * steps * factor * total for shape, total in zip(SHAPES, totals, strict=True)]


def _check(f: Framework, got: list[Array], wanted: list[Array], tolerance: float = 1e-5) -> None:
    for one, other in zip(got, wanted, strict=True):
        close(one, other, tolerance)


@CASES.add(averages=True)
def gradients_are_averaged_before_they_are_applied(f: Framework) -> None:
    """API, DistributedOptimizer, op: Average by default; step after step."""
    _check(f, _after(f, steps=3), _expected(f, 1 / f.hvd.size(), steps=3))


@CASES.add(averages=True)
def gradients_are_summed_with_op_sum(f: Framework) -> None:
    """API, DistributedOptimizer, op: the reduction operation to use when combining gradients."""
    _check(f, _after(f, op=f.hvd.Sum), _expected(f, 1.0))


@CASES.add(averages=True)
def gradient_predivide_factor_splits_the_averaging(f: Framework) -> None:
    """API, DistributedOptimizer, gradient_predivide_factor: 1 / factor before the sum, factor / size after: the average."""
    _check(f, _after(f, gradient_predivide_factor=2.0), _expected(f, 1 / f.hvd.size()))


@CASES.add(averages=True)
def predivided_gradients_of_half_precision_do_not_overflow(f: Framework) -> None:
    """API, DistributedOptimizer, gradient_predivide_factor: scaled before the sum; with the number of ranks, divided."""
    (variable,) = f.variables([np.zeros(3)])
    factor = float(f.hvd.size())
    step = f.optimizer([variable], 1.0, compression=f.hvd.Compression.fp16, gradient_predivide_factor=factor)
    step([[np.full(3, 40_000.0)]])
    close(f.numpy(variable), np.full(3, -40_000.0), 2e-3)


@CASES.add(averages=True)
def gradients_of_backward_passes_add_up_before_they_are_reduced(f: Framework) -> None:
    """API, DistributedOptimizer, backward_passes_per_step: accumulating gradients over multiple mini-batches."""
    got = _after(f, steps=2, passes=3, backward_passes_per_step=3)
    _check(f, got, _expected(f, 1 / f.hvd.size(), steps=2, passes=3))


@CASES.add(averages=True)
def compressed_gradients_are_averaged(f: Framework) -> None:
    """API, DistributedOptimizer, compression: reduces the amount of data sent."""
    _check(f, _after(f, compression=f.hvd.Compression.fp16), _expected(f, 1 / f.hvd.size()), 2e-3)


@CASES.add(averages=True)
def grouped_gradients_are_averaged(f: Framework) -> None:
    """API, DistributedOptimizer, groups: the number of groups to assign gradient allreduces to; changes no result."""
    for groups in (0, 1, 2, 10):
        _check(f, _after(f, groups=groups), _expected(f, 1 / f.hvd.size()))


@CASES.add(ranks=3, averages=True)
def gradients_are_averaged_within_a_process_set(f: Framework) -> None:
    """API, DistributedOptimizer, process_set: gradients will only be reduced over processes belonging to it."""
    some = f.hvd.add_process_set([0, 2])
    if some.included():
        _check(f, _after(f, process_set=some), _expected(f, 1 / 2, ranks=[0, 2]))
    assert f.hvd.remove_process_set(some) is True
