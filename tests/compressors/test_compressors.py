"""What holds for every compressor: sizes, bounds, bias, poison, determinism."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.compressors import COMPRESSORS, Compressor, make_compressor
from hvd_gossip.errors import ConfigError

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
ROUNDING = {"float64": 2e-7, "float32": 2e-7, "float16": 1e-3, "bfloat16": 8e-3}
"""Relative error of one rounding to the type, or to float32 in which values are computed."""
NAMES = list(COMPRESSORS)
few = settings(max_examples=settings().max_examples // 3)
names = pytest.mark.parametrize("name", NAMES)


@st.composite
def arrays(draw: st.DrawFn, least: int = 0) -> np.ndarray:
    """Normal, skewed, sparse and constant ones; lengths around those of buckets and bytes."""
    length = draw(st.one_of(st.integers(least, 20), st.sampled_from([63, 64, 65, 511, 512, 513, 1200])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["normal", "skewed", "sparse", "constant", "zero"]))
    values = {
        "normal": rng.standard_normal(length),
        "skewed": rng.standard_normal(length) ** 5,
        "sparse": rng.standard_normal(length) * (rng.random(length) < 0.1),
        "constant": np.full(length, rng.standard_normal()),
        "zero": np.zeros(length),
    }[kind]
    return values.astype(draw(st.sampled_from(DTYPES)))


def compressors(name: str) -> st.SearchStrategy[Compressor]:
    return st.sampled_from([0.01, 0.3, 0.5, 0.75, 1.0]).map(lambda ratio: make_compressor(name, ratio))


def there_and_back(compressor: Compressor, array: np.ndarray, seed: int = 0) -> np.ndarray:
    wire = compressor.compress(array, np.random.default_rng(seed))
    out = np.full_like(array, 7)
    compressor.decompress(wire, out)
    return out


def squared(array: np.ndarray) -> float:
    return float(np.square(array.astype(np.float64)).sum())


@names
@given(data=st.data(), array=arrays())
def test_size_of_a_wire_is_known_before_it_is_made(name: str, data: st.DataObject, array: np.ndarray) -> None:
    compressor = data.draw(compressors(name))
    before = array.copy()
    wire = compressor.compress(array, np.random.default_rng(1))
    assert (wire.dtype, wire.shape) == (np.uint8, (compressor.nbytes(array.size, array.dtype),))
    assert wire.flags.c_contiguous
    assert not np.shares_memory(wire, array)
    np.testing.assert_array_equal(array, before)
    out = there_and_back(compressor, array)
    assert (out.dtype, out.shape) == (array.dtype, array.shape)
    assert np.all(np.isfinite(out.astype(np.float64)))


@names
@few
@given(data=st.data(), array=arrays(least=1))
def test_contraction_is_at_least_delta_in_the_mean(name: str, data: st.DataObject, array: np.ndarray) -> None:
    """Over 64 draws, to five standard errors and the rounding of the type."""
    compressor = data.draw(compressors(name))
    errors = [
        squared(array.astype(np.float64) - there_and_back(compressor, array, seed).astype(np.float64))
        for seed in range(64)
    ]
    norm, slack = squared(array), ROUNDING[array.dtype.name]
    bound = (1 - compressor.delta(array.size)) * norm
    assert 0 < compressor.delta(array.size) <= 1
    assert np.mean(errors) <= bound + 5 * np.std(errors) / 8 + slack * norm


@pytest.mark.parametrize("name", [name for name in NAMES if make_compressor(name).unbiased])
@few
@given(array=arrays(least=1))
def test_mean_of_an_unbiased_one_is_the_array(name: str, array: np.ndarray) -> None:
    compressor, draws = make_compressor(name), 200
    results = np.stack([there_and_back(compressor, array, seed).astype(np.float64) for seed in range(draws)])
    exact, largest = array.astype(np.float64), float(np.abs(array.astype(np.float64)).max())
    # A draw has two outcomes at most M / 7 apart: the standard error of the mean is at most half of that over sqrt(draws).
    step = float(np.ptp(results, axis=0).max())
    tolerance = 6 * step / 2 / draws**0.5 + ROUNDING[array.dtype.name] * largest
    np.testing.assert_allclose(results.mean(axis=0), exact, rtol=0, atol=tolerance)


@names
@given(data=st.data(), array=arrays(least=1), bad=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_what_is_not_finite_stays_so(name: str, data: st.DataObject, array: np.ndarray, bad: float) -> None:
    array[data.draw(st.integers(0, array.size - 1))] = bad
    out = there_and_back(data.draw(compressors(name)), array, seed=3)
    assert not np.all(np.isfinite(out.astype(np.float64)))


@names
@given(data=st.data(), array=arrays(), seed=st.integers(0, 2**32))
def test_equal_generators_make_equal_wires(name: str, data: st.DataObject, array: np.ndarray, seed: int) -> None:
    compressor = data.draw(compressors(name))
    one, other = (compressor.compress(array, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@names
def test_constants_and_single_elements_come_back_as_they_are(name: str, dtype: Any) -> None:
    """Random-k and top-k lose elements, but not a single one."""
    lengths = [1] if name in ("top-k", "random-k") else [1, 2, 65, 700]
    for length in lengths:
        for value in (0.0, 1.0, -0.375, 1e4):
            array = np.full(length, value, dtype)
            np.testing.assert_array_equal(there_and_back(make_compressor(name), array), array)


@names
def test_empty_arrays_have_wires_without_meaning(name: str) -> None:
    compressor = make_compressor(name)
    for dtype in DTYPES:
        assert there_and_back(compressor, np.empty(0, dtype)).size == 0


@names
def test_wire_of_another_size_is_an_error(name: str) -> None:
    compressor = make_compressor(name)
    wire = compressor.compress(np.ones(100, np.float32), np.random.default_rng(0))
    with pytest.raises(ValueError, match=rf"a wire of {wire.size + 8} bytes arrived where {wire.size} were expected"):
        compressor.decompress(np.append(wire, np.zeros(8, np.uint8)), np.ones(100, np.float32))


@pytest.mark.parametrize("bad", [np.ones((2, 2)), np.ones(4, np.int32), np.ones(8)[::2]], ids=["2-d", "int", "strided"])
@names
def test_what_is_no_flat_floating_array_is_refused(name: str, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="only 1-D contiguous arrays of a floating type are compressed"):
        make_compressor(name).compress(bad, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["qsgd-8", "qsgd-4", "sign"])
def test_values_that_float32_cannot_hold_are_refused(name: str) -> None:
    assert not np.isfinite(there_and_back(make_compressor(name), np.array([1.0, 1e300]))).all()


@pytest.mark.parametrize("name", ["identity", "top-k", "random-k"])
def test_what_is_not_computed_with_keeps_its_digits(name: str) -> None:
    array = np.array([1e300, 1 / 3, 1 + 1e-15])
    np.testing.assert_array_equal(there_and_back(make_compressor(name, 1.0), array), array)


def test_bytes_of_a_megabyte_of_float32() -> None:
    sizes = {name: make_compressor(name, 0.01).nbytes(1 << 18, np.float32) for name in NAMES}
    assert sizes == {
        "identity": 1 << 20,
        "top-k": 2 * 10488,
        "random-k": 8 + 10488,
        "qsgd-8": (1 << 18) + 4 * 512,
        "qsgd-4": (1 << 17) + 4 * 4096,
        "sign": (1 << 15) + 8,
    }


def test_unknown_name_is_an_error_with_close_matches_and_all_names() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown compressor 'topk'\. Did you mean top-k\? Valid: identity, top-k, ran"
    ):
        make_compressor("topk")


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan")])
@pytest.mark.parametrize("name", ["top-k", "random-k"])
def test_ratio_out_of_range_is_an_error(name: str, ratio: float) -> None:
    with pytest.raises(ConfigError, match="compression_ratio must be above 0 and at most 1"):
        make_compressor(name, ratio)


@names
def test_names_and_papers_are_told(name: str) -> None:
    compressor = make_compressor(name)
    assert compressor.name == name
    assert 10 < len(compressor.paper) < 120
