"""NumPy and CuPy as one array space: which module an array belongs to, dtypes, and the few kernels of gossip.

Half types (float16, bfloat16) are stored and sent as they are and added in float32. bfloat16 is ml_dtypes' dtype.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from hvd_gossip.errors import ConfigError

Array = Any
"""A NumPy or CuPy array."""

WIRE_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""Types that parameters may travel in, by the name that `--wire-dtype` says; "parameter" means as they are stored."""
_SMALL = 4096
"""Elements of a NumPy array up to which one sum of squares, by which all values are finite, costs less than a look at each and a
guard against warnings: a simulation's models."""
_HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def module_of(array: Array) -> Any:
    """The array's module, numpy or cupy, without importing the latter for NumPy's arrays."""
    return np if isinstance(array, np.ndarray) else sys.modules["cupy"]


def to_host(array: Array) -> np.ndarray:
    """A copy of an array in NumPy's memory."""
    return np.array(array) if isinstance(array, np.ndarray) else np.asarray(array.get())


def is_floating(dtype: Any) -> bool:
    """True for float64, float32, float16 and bfloat16."""
    dtype = np.dtype(dtype)
    return dtype in _HALVES or dtype in (np.dtype(np.float32), np.dtype(np.float64))


@lru_cache
def compute_dtype(dtype: Any) -> np.dtype[Any]:
    """The type to add in: float32 for the half types, else the type itself."""
    work: np.dtype[Any] = np.dtype(dtype)
    if work in _HALVES:
        work = np.dtype(np.float32)
    return work


@lru_cache
def wire_dtype(name: str, stored: Any) -> np.dtype[Any]:
    """The type in which an array of type `stored` travels under the setting `wire_dtype`.

    A type wider than the stored one is not used: it would carry no more information.

    Raises:
        ConfigError: the name is none of "parameter", "float32", "float16", "bfloat16".
    """
    stored_dtype: np.dtype[Any] = np.dtype(stored)
    if name == "parameter":
        return stored_dtype
    if name not in WIRE_DTYPES:
        raise ConfigError(f"unknown wire_dtype {name!r}: expected parameter, {', '.join(WIRE_DTYPES)}")
    wanted = WIRE_DTYPES[name]
    return wanted if wanted.itemsize < stored_dtype.itemsize else stored_dtype


def is_finite(array: Array) -> bool:
    """Whether no element is infinite or NaN. On a GPU this waits for the array's stream."""
    if array.dtype == _HALVES[1]:
        array = array.astype(np.float32)
    return bool(module_of(array).isfinite(array).all())


def add_into(out: Array, a: Array, b: Array) -> None:
    """out <- a + b, added in `compute_dtype` and rounded once to out's type."""
    work = compute_dtype(a.dtype)
    if out.dtype == a.dtype == work:
        module_of(out).add(a, b, out=out)
    else:
        out[...] = a.astype(work) + b.astype(work)


def add_difference(accumulator: Array, weight: float, a: Array, b: Array) -> None:
    """accumulator <- accumulator + weight * (a - b). `a` may be used as scratch: its content is lost."""
    difference = difference_of(a, b, accumulator.dtype)
    difference *= difference.dtype.type(weight)
    add_into(accumulator, accumulator, difference)


def difference_of(a: Array, b: Array, stored: Any) -> Array:
    """a - b in `compute_dtype(stored)`; in a's memory if that is of this type, b's too: then a's content is lost.

    Not finite where a or b is not, without a warning.
    """
    work = compute_dtype(stored)
    with np.errstate(over="ignore", invalid="ignore"):
        if a.dtype == b.dtype == work:
            return module_of(a).subtract(a, b, out=a)
        return a.astype(work) - b.astype(work)


def finite_difference_of(a: Array, b: Array, stored: Any) -> Array | None:
    """`difference_of`, or None if an element of it is not finite."""
    small = a.size <= _SMALL and isinstance(a, np.ndarray) and a.dtype == b.dtype == compute_dtype(stored)
    if small and math.isfinite(np.vdot(a, a)) and math.isfinite(np.vdot(b, b)):
        return np.subtract(a, b, out=a)
    difference = difference_of(a, b, stored)
    return difference if is_finite(difference) else None


def weighted_difference(weight: float, a: Array, b: Array, stored: Any) -> Array:
    """weight * (a - b) as a new array of `compute_dtype(stored)`; exactly the negative of weight * (b - a)."""
    difference = difference_of(a.astype(compute_dtype(stored)), b, stored)
    difference *= difference.dtype.type(weight)
    return difference


def add_scaled(accumulator: Array, weight: float, a: Array) -> None:
    """accumulator <- accumulator + weight * a."""
    work = compute_dtype(accumulator.dtype)
    add_into(accumulator, accumulator, a.astype(work) * work.type(weight))


def scale(array: Array, factor: float) -> None:
    """array <- array * factor."""
    work = compute_dtype(array.dtype)
    if array.dtype == work:
        array *= work.type(factor)
    else:
        array[...] = array.astype(work) * work.type(factor)


def squared_distance(a: Array, b: Array) -> float:
    """Sum of (a - b)^2 in float64."""
    difference = a.astype(np.float64) - b.astype(np.float64)
    return float(difference @ difference)
