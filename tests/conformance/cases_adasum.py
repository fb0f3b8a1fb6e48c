"""Horovod, "AdaSum with Horovod", against a transcription of its formula."""

from __future__ import annotations

import numpy as np

from tests.conformance.case import Array, Cases, raises, same
from tests.conformance.framework import Framework

CASES = Cases()


def adasum(gradients: list[Array]) -> Array:
    """Pairs of gradients, reduced until one is left: from each, half of its projection on the other is subtracted."""
    if len(gradients) == 1:
        return gradients[0]
    pairs = zip(gradients[::2], gradients[1::2], strict=True)
    return adasum([_pair(one, other) for one, other in pairs])


def _pair(one: Array, other: Array) -> Array:
    dot = float((one * other).sum())
    ones, others = float((one * one).sum()), float((other * other).sum())
    share = 1 - dot / (2 * ones) if ones else 1.0
    other_share = 1 - dot / (2 * others) if others else 1.0
    return share * one + other_share * other


def _gradients(f: Framework, *shape: int, seed: int = 0) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(np.float32).astype(np.float64) for _ in range(f.hvd.size())]


@CASES.add(powers_of_two=True)
def adasum_reduces_pairs_of_gradients_until_one_is_left(f: Framework) -> None:
    """AdaSum: 2^n gradients are inductively reduced in pairs, by the formula."""
    for seed, shape in enumerate(((5,), (3, 4), (), (1000,), (1, 7, 2))):
        gradients = _gradients(f, *shape, seed=seed)
        for dtype, scale in (("float64", 10.0), ("float32", 10.0)):
            result = f.hvd.allreduce(f.tensor(gradients[f.hvd.rank()], dtype), op=f.hvd.Adasum)
            same(f, result, adasum(gradients), dtype, scale)


@CASES.add(powers_of_two=True)
def adasum_of_half_precision(f: Framework) -> None:
    """AdaSum: of float16 tensors, to their precision."""
    gradients = [gradient.astype(np.float16).astype(np.float64) for gradient in _gradients(f, 64)]
    same(
        f,
        f.hvd.allreduce(f.tensor(gradients[f.hvd.rank()], "float16"), op=f.hvd.Adasum),
        adasum(gradients),
        "float16",
        3,
    )


@CASES.add(powers_of_two=True)
def adasum_of_large_half_precision_gradients(f: Framework) -> None:
    """AdaSum: an average of parallel gradients, also where the products of half precision would overflow."""
    mine = np.full(1000, 300.0)
    same(f, f.hvd.allreduce(f.tensor(mine, "float16"), op=f.hvd.Adasum), mine, "float16")


@CASES.add(powers_of_two=True)
def adasum_of_orthogonal_gradients_is_their_sum(f: Framework) -> None:
    """AdaSum: reduces to a sum when g1 and g2 are orthogonal."""
    n = f.hvd.size()
    mine = np.eye(n)[f.hvd.rank()] * (f.hvd.rank() + 1)
    same(f, f.hvd.allreduce(f.tensor(mine), op=f.hvd.Adasum), np.arange(1, n + 1), scale=10)


@CASES.add(powers_of_two=True)
def adasum_of_parallel_gradients_is_their_average(f: Framework) -> None:
    """AdaSum: reduces to an average when g1 and g2 are parallel."""
    same(f, f.hvd.allreduce(f.tensor([3.0, -1.0, 2.0]), op=f.hvd.Adasum), [3, -1, 2], scale=10)


@CASES.add(powers_of_two=True)
def adasum_of_zeros_is_zero(f: Framework) -> None:
    """AdaSum: a gradient that vanishes has no direction, and adds nothing."""
    same(f, f.hvd.allreduce(f.tensor(np.zeros(4)), op=f.hvd.Adasum), np.zeros(4))
    mine = np.ones(4) if f.hvd.rank() == 0 else np.zeros(4)
    same(f, f.hvd.allreduce(f.tensor(mine), op=f.hvd.Adasum), np.ones(4))


@CASES.add(powers_of_two=True)
def adasum_treats_each_tensor_by_itself(f: Framework) -> None:
    """AdaSum: of a gradient; tensors that travel together are not one."""
    first, second = _gradients(f, 6, seed=1), _gradients(f, 3, 2, seed=2)
    rank = f.hvd.rank()
    results = f.hvd.grouped_allreduce([f.tensor(first[rank]), f.tensor(second[rank])], op=f.hvd.Adasum)
    same(f, results[0], adasum(first), scale=10)
    same(f, results[1], adasum(second), scale=10)


@CASES.add(powers_of_two=False)
def adasum_needs_a_power_of_two(f: Framework) -> None:
    """AdaSum: needs the number of nodes to be a power of 2; others are refused, and the next operation works."""
    with raises(NotImplementedError):
        f.hvd.allreduce(f.tensor(np.ones(4)), op=f.hvd.Adasum)
    same(f, f.hvd.allreduce(f.tensor(np.ones(4))), np.ones(4))
