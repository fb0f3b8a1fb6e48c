"""The arithmetic of allreduce on chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives import Average, Max, Min, Product, ReduceOp, Sum
from hvd_gossip.collectives.memory import HOST
from hvd_gossip.collectives.reduction import Reduction, accumulator_dtype
from hvd_gossip.collectives.request import dtype_of
from tests.collectives.cluster import BFLOAT16, DTYPES, assert_reduced, reduced, reductions, values

SCALES = st.sampled_from([1.0, 0.5, 3.0])


@given(reduction=reductions, count=st.integers(1, 5), length=st.integers(0, 9), scales=st.tuples(SCALES, SCALES))
def test_reduce_all_matches_numpy(
    reduction: tuple[Any, ReduceOp], count: int, length: int, scales: tuple[float, float]
) -> None:
    dtype, op = reduction
    if dtype.kind == "b":
        scales, op = (1.0, 1.0), Sum if op is Average else op
    parts = [values(dtype, length, seed) for seed in range(count)]
    copies = [part.copy() for part in parts]
    out = np.empty(length, dtype)
    with HOST.computing():
        Reduction(out, op, count, *scales).reduce_all(parts, out)
    assert_reduced(out, reduced(copies, op, *scales))
    assert all(part.tobytes() == copy.tobytes() for part, copy in zip(parts, copies, strict=True))


@given(reduction=reductions, scales=st.tuples(SCALES, SCALES))
def test_chunk_by_chunk_gives_the_same(reduction: tuple[Any, ReduceOp], scales: tuple[float, float]) -> None:
    """As the ring does it: partial results in the accumulator's type, the last one finished."""
    dtype, op = reduction
    if dtype.kind == "b":
        return
    parts = [values(dtype, 6, seed) for seed in range(3)]
    arithmetic = Reduction(parts[0], op, 3, *scales)
    inputs = [np.empty_like(part) for part in parts]
    for given_, wanted in zip(parts, inputs, strict=True):
        if arithmetic.prescale != 1.0:
            arithmetic.prescaled(wanted, given_)
        else:
            wanted[...] = given_
    total = np.empty(6, arithmetic.accumulator)
    arithmetic.combine(total, inputs[0], inputs[1])
    arithmetic.combine(total, total, inputs[2])
    out = np.empty(6, dtype)
    arithmetic.finish(out, total)
    assert_reduced(out, reduced(parts, op, *scales))


def test_half_types_are_added_in_float32() -> None:
    for name in ("float16", "bfloat16", "float8_e4m3fn"):
        assert accumulator_dtype(dtype_of(name)) == np.float32
    assert accumulator_dtype(np.dtype(np.int16)) == np.int16
    assert accumulator_dtype(np.dtype(np.float64)) == np.float64


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16])
def test_a_half_sum_may_exceed_the_half_range_before_it_is_averaged(dtype: np.dtype[Any]) -> None:
    large = np.full(4, 6e4 if dtype == np.float16 else 3e38, dtype)
    out = np.empty(4, dtype)
    parts = [large, large if dtype == np.float16 else -large, large]
    with HOST.computing():
        Reduction(out, Average, 3).reduce_all(parts, out)
    assert np.isfinite(out.astype(np.float32)).all()


def test_factors_fold_for_floating_sums_only() -> None:
    array = np.ones(2, np.float32)
    assert Reduction(array, Sum, 2, prescale=0.5).prescale == 1.0
    assert Reduction(array, Max, 2, prescale=0.5).prescale == 0.5
    assert Reduction(np.ones(2, np.int32), Sum, 2, prescale=0.5).prescale == 0.5


def test_integer_average_is_rounded_down_and_scaling_cuts_towards_zero() -> None:
    out = np.empty(2, np.int32)
    parts = [np.array([-3, 4], np.int32), np.array([0, 3], np.int32)]
    Reduction(out, Average, 2).reduce_all(parts, out)
    assert out.tolist() == [-2, 3]
    Reduction(out, Sum, 2, postscale=0.5).reduce_all(parts, out)
    assert out.tolist() == [-1, 3]


def test_integers_wrap_around() -> None:
    out = np.empty(1, np.uint8)
    Reduction(out, Sum, 2).reduce_all([np.array([200], np.uint8)] * 2, out)
    assert out.tolist() == [144]


def test_average_over_more_ranks_than_the_type_can_count() -> None:
    out = np.empty(2, np.int8)
    Reduction(out, Average, 200).reduce_all([np.zeros(2, np.int8)] * 199 + [np.array([100, -100], np.int8)], out)
    assert out.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("op", "wanted"), [(Sum, [False, True, True]), (Max, [False, True, True]), (Min, [False, False, True]),
                       (Product, [False, False, True])]
)  # fmt: skip
def test_bool_is_logic(op: ReduceOp, wanted: list[bool]) -> None:
    out = np.empty(3, bool)
    Reduction(out, op, 2).reduce_all([np.array([False, True, True]), np.array([False, False, True])], out)
    assert out.tolist() == wanted


def test_not_a_number_passes_without_a_warning() -> None:
    out = np.empty(2, np.float32)
    parts = [np.array([np.inf, np.nan], np.float32), np.array([-np.inf, 1.0], np.float32)]
    with HOST.computing():
        Reduction(out, Average, 2).reduce_all(parts, out)
    assert np.isnan(out).all()


def test_identity_of_one_rank() -> None:
    array = np.ones(2, np.float32)
    assert Reduction(array, Average, 1).is_identity
    assert not Reduction(array, Average, 2).is_identity
    assert not Reduction(array, Max, 1, prescale=2.0).is_identity
    assert not Reduction(array, Sum, 1, postscale=2.0).is_identity


def test_every_type_is_tried() -> None:
    assert {dtype.kind for dtype in DTYPES} >= set("iufc")


@pytest.mark.parametrize(
    ("op", "wanted"), [(Min, [-2, 0]), (Max, [0, 3]), (Product, [0, 0]), (Sum, [-2, 3]), (Average, [-1, 1.5])]
)
def test_zeros_of_who_sends_nothing(op: ReduceOp, wanted: list[float]) -> None:
    for dtype in (np.float16, np.float64):
        values, out = np.array([-2, 3], dtype), np.empty(2, dtype)
        reduction = Reduction(values, op, 2, zeros=True)
        assert not reduction.is_identity or op is Sum
        reduction.reduce_one(out, values)
        assert out.tolist() == wanted


def test_false_of_who_sends_nothing() -> None:
    values, out = np.array([True, False]), np.empty(2, bool)
    for op, wanted in ((Min, [False, False]), (Max, [True, False]), (Product, [False, False])):
        Reduction(values, op, 2, zeros=True).reduce_one(out, values)
        assert out.tolist() == wanted
