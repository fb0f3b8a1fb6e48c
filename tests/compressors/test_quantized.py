"""Quantization: levels, buckets, signs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hvd_gossip.compressors.qsgd import Qsgd4, Qsgd8
from hvd_gossip.compressors.sign import Sign

QUANTIZERS = [Qsgd8(), Qsgd4()]
quantizers = pytest.mark.parametrize("compressor", QUANTIZERS, ids=[one.name for one in QUANTIZERS])
VECTORS = npst.arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))


def there_and_back(compressor: Qsgd8 | Qsgd4 | Sign, array: np.ndarray, seed: int = 0) -> np.ndarray:
    out = np.empty_like(array)
    compressor.decompress(compressor.compress(array, np.random.default_rng(seed)), out)
    return out


@quantizers
@given(array=VECTORS, seed=st.integers(0, 2**32))
def test_an_element_moves_to_one_of_the_two_levels_beside_it(
    compressor: Qsgd8 | Qsgd4, array: np.ndarray, seed: int
) -> None:
    out = there_and_back(compressor, array, seed).astype(float)
    for start in range(0, array.size, compressor.bucket):
        mine, theirs = array[start : start + compressor.bucket].astype(float), out[start : start + compressor.bucket]
        step = float(np.abs(mine).max()) / compressor.levels
        assert np.all(np.abs(mine - theirs) <= step * (1 + 1e-5))
        levels = theirs / step if step else theirs
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)


@quantizers
def test_worst_case_of_the_variance_is_reached(compressor: Qsgd8 | Qsgd4) -> None:
    """One large element and all others half a level from zero: omega is the bound for the worst of all arrays, and
    near B / (4 s^2) only if the largest element holds the norm."""
    length, s = compressor.bucket, compressor.levels
    array = np.full(length, 0.5 / s, np.float64)
    array[0] = 1.0
    errors = [np.square(array - there_and_back(compressor, array, seed)).sum() for seed in range(20)]
    norm = np.square(array).sum()
    np.testing.assert_allclose(errors, (length - 1) / (4 * s * s), rtol=1e-4)
    assert max(errors) <= compressor.omega(length) * norm
    assert max(errors) >= compressor.omega(length) * norm / (1 + compressor.omega(length)) * (1 - 1.01 / length)


@quantizers
def test_multiples_of_a_level_come_back_exactly_whatever_is_drawn(compressor: Qsgd8 | Qsgd4) -> None:
    levels = np.arange(-compressor.levels, compressor.levels + 1, dtype=np.float64)
    for seed in range(5):
        np.testing.assert_array_equal(
            there_and_back(compressor, levels[-compressor.bucket :], seed), levels[-compressor.bucket :]
        )


def test_a_bucket_that_is_not_finite_leaves_the_others_alone() -> None:
    array = np.ones(3 * Qsgd4.bucket, np.float32)
    array[Qsgd4.bucket] = np.inf
    out = there_and_back(Qsgd4(), array).reshape(3, -1)
    np.testing.assert_array_equal(out[[0, 2]], 1)
    assert not np.isfinite(out[1]).any()


@given(array=VECTORS)
def test_sign_contracts_by_exactly_the_density(array: np.ndarray) -> None:
    wide = array.astype(np.float64)
    error = np.square(wide - there_and_back(Sign(), array)).sum()
    norm = np.square(wide).sum()
    assert error == pytest.approx(norm - np.abs(wide).sum() ** 2 / array.size, rel=1e-5, abs=1e-5 * norm)
    assert error <= (1 - Sign().delta(array.size)) * norm * (1 + 1e-6)


def test_sign_sends_the_mean_magnitude_and_the_signs() -> None:
    np.testing.assert_array_equal(there_and_back(Sign(), np.array([3.0, -1.0, 0.0, -4.0])), [2.0, -2.0, 2.0, -2.0])


def test_magnitudes_whose_sum_is_beyond_float32_have_a_mean() -> None:
    array = np.full(1000, 3e38, np.float32)
    np.testing.assert_array_equal(there_and_back(Sign(), array), array)


def test_sign_s_contraction_of_normal_elements_is_two_over_pi() -> None:
    array = np.random.default_rng(0).standard_normal(100_000)
    error = np.square(array - there_and_back(Sign(), array)).sum() / np.square(array).sum()
    assert 1 - error == pytest.approx(Sign().typical_delta(array.size), rel=0.01)
    assert Qsgd4().typical_delta(64) == Qsgd4().delta(64)
