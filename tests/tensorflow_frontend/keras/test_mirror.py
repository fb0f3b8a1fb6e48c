"""Flat mirrors of variables, without TensorFlow's runtime."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

tensorflow = pytest.importorskip("tensorflow")

from hvd_gossip.tensorflow.arrays import is_aligned  # noqa: E402
from hvd_gossip.tensorflow.mirror import PIECE, FlatMirror  # noqa: E402

SHAPES = ((3, 2), (), (0, 4), (PIECE + 5,), (2, 2, 2))
TYPES = (np.float32, np.float64, np.float32, np.float32, np.float16)


def arrays(seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [
        generator.integers(-8, 8, shape).astype(dtype) * dtype(1.25) for shape, dtype in zip(SHAPES, TYPES, strict=True)
    ]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_one_buffer_a_type_in_order_of_appearance() -> None:
    mirror = FlatMirror(arrays(0))
    assert [buffer.dtype for buffer in mirror.buffers] == [np.float32, np.float64, np.float16]
    assert [buffer.size for buffer in mirror.buffers] == [6 + PIECE + 5, 1, 8]
    assert all(buffer.ndim == 1 and is_aligned(buffer) for buffer in mirror.buffers)


def test_values_come_back_in_memory_of_their_own() -> None:
    mirror = FlatMirror(arrays(0))
    values = mirror.values()
    same(values, arrays(0))
    assert all(is_aligned(value) for value in values if value.size)
    for buffer in mirror.buffers:
        buffer += 1
    same(values, arrays(0))


def test_what_memory_held_before_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing it warns where it happens to be a signalling NaN."""

    def dirty(like: np.ndarray) -> np.ndarray:
        memory = np.empty_like(like)
        memory.view(np.uint16)[...] = 0x7F81
        return memory

    monkeypatch.setattr("hvd_gossip.tensorflow.mirror.aligned_like", dirty)
    values = [np.ones(3, ml_dtypes.bfloat16)]
    same(FlatMirror(values).values(), values)


def test_an_update_is_taken_over_exactly() -> None:
    mirror = FlatMirror(arrays(0))
    mirror.advance(arrays(0), arrays(1))
    same(mirror.values(), arrays(1))


def test_what_the_buffers_hold_is_replaced() -> None:
    mirror = FlatMirror(arrays(0))
    mirror.replace(arrays(1))
    same(mirror.values(), arrays(1))


def test_an_update_is_added_to_what_came_meanwhile() -> None:
    mirror = FlatMirror(arrays(0))
    for buffer in mirror.buffers:
        buffer += 2
    mirror.advance(arrays(0), arrays(1))
    same(mirror.values(), [array + array.dtype.type(2) for array in arrays(1)])


def test_values_that_somebody_assigned_are_adopted() -> None:
    mirror = FlatMirror(arrays(0))
    assigned = [*arrays(0)[:3], *arrays(2)[3:]]
    mirror.adopt(assigned)
    same(mirror.values(), assigned)
    undefined = [np.full_like(array, np.nan) for array in arrays(0)]
    mirror.adopt(undefined)
    same(mirror.values(), undefined)


def test_fits_says_whether_shapes_and_types_are_the_same() -> None:
    mirror = FlatMirror(arrays(0))
    assert mirror.fits(arrays(1))
    assert not mirror.fits([array.reshape(-1) for array in arrays(1)])
    assert not mirror.fits([array.astype(np.float64) for array in arrays(1)])
    assert not mirror.fits(arrays(1)[:-1])
