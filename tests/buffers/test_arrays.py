"""The kernels, in every dtype, against float64."""

import ml_dtypes
import numpy as np
import pytest

from hvd_gossip.buffers.arrays import (
    add_difference,
    add_into,
    add_scaled,
    compute_dtype,
    finite_difference_of,
    is_finite,
    is_floating,
    scale,
    squared_distance,
    wire_dtype,
)
from hvd_gossip.errors import ConfigError

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
HALF_ULP = {"float64": 1e-15, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def numbers(dtype: object, seed: int, length: int = 257) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length).astype(dtype)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_agree_with_float64(dtype: type) -> None:
    x, a, b = (numbers(dtype, seed) for seed in range(3))
    tolerance = HALF_ULP[np.dtype(dtype).name]
    wide = [array.astype(np.float64) for array in (x, a, b)]
    out = np.empty_like(x)
    add_into(out, x, a)
    np.testing.assert_allclose(out.astype(np.float64), wide[0] + wide[1], rtol=tolerance, atol=tolerance)
    add_scaled(out, -0.25, b)
    np.testing.assert_allclose(out.astype(np.float64), wide[0] + wide[1] - wide[2] / 4, atol=4 * tolerance)
    add_difference(x, 0.5, a, b)
    np.testing.assert_allclose(x.astype(np.float64), wide[0] + (wide[1] - wide[2]) / 2, atol=4 * tolerance)
    scale(b, 3.0)
    np.testing.assert_allclose(b.astype(np.float64), 3 * wide[2], rtol=tolerance, atol=tolerance)
    assert {array.dtype for array in (x, b, out)} == {np.dtype(dtype)}


@pytest.mark.parametrize("wire", [np.float16, ml_dtypes.bfloat16])
def test_a_difference_of_wire_types_is_added_to_wider_parameters(wire: type) -> None:
    correction, theirs, mine = np.zeros(8, np.float32), np.full(8, 1.5, wire), np.full(8, 0.5, wire)
    add_difference(correction, 0.5, theirs, mine)
    np.testing.assert_array_equal(correction, np.full(8, 0.5, np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_element_is_found(dtype: type, bad: float) -> None:
    array = numbers(dtype, 0)
    assert is_finite(array)
    array[-1] = bad
    assert not is_finite(array)


@pytest.mark.parametrize("length", [8, 5000])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_difference_is_given_where_it_is_finite_and_nowhere_else(dtype: type, length: int) -> None:
    """Squares that overflow, differences that do, and what is not finite from the start; none of them warns."""
    most = float(np.finfo(dtype).max)
    for theirs in (1.0, most**0.75, most, np.inf, -np.inf, np.nan):
        for mine in (1.0, -most, -np.inf, np.nan):
            a, b = np.ones(length, dtype), np.ones(length, dtype)
            a[-1], b[-1] = theirs, mine
            with np.errstate(all="ignore"):
                expected = a[-1] - b[-1]
            difference = finite_difference_of(a, b, dtype)
            if np.isfinite(expected):
                assert difference is not None
                assert (difference[0], difference[-1]) == (0.0, expected)
            else:
                assert difference is None


def test_wire_types_never_widen_what_is_stored() -> None:
    assert wire_dtype("float16", np.float32) == np.float16
    assert wire_dtype("bfloat16", np.float64) == ml_dtypes.bfloat16
    assert wire_dtype("float32", np.float64) == np.float32
    assert wire_dtype("float32", np.float16) == np.float16
    assert wire_dtype("bfloat16", np.float16) == np.float16
    assert wire_dtype("parameter", np.float64) == np.float64
    with pytest.raises(ConfigError, match="float16"):
        wire_dtype("float8", np.float32)


def test_halves_are_added_in_float32() -> None:
    assert [compute_dtype(dtype) for dtype in DTYPES] == [np.float64, np.float32, np.float32, np.float32]
    assert all(is_floating(dtype) for dtype in DTYPES)
    assert not is_floating(np.int64)


def test_squared_distance() -> None:
    assert squared_distance(np.array([1, 2], np.float16), np.array([4, 6], np.float16)) == 25.0
