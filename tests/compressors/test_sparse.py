"""Top-k and random-k: which elements travel."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.compressors.sparse import RandomK, TopK, draw

RATIOS = st.sampled_from([0.01, 0.1, 0.5, 0.6, 0.99, 1.0])


def sent(compressor: TopK | RandomK, array: np.ndarray, seed: int = 0) -> np.ndarray:
    out = np.empty_like(array)
    compressor.decompress(compressor.compress(array, np.random.default_rng(seed)), out)
    return out


@given(length=st.integers(1, 300), ratio=RATIOS, seed=st.integers(0, 2**32))
def test_top_k_keeps_the_largest_and_nothing_else(length: int, ratio: float, seed: int) -> None:
    array = np.random.default_rng(seed).standard_normal(length)
    out, kept = sent(TopK(ratio), array), math.ceil(ratio * length)
    largest = np.argsort(-np.abs(array))[:kept]
    expected = np.zeros(length)
    expected[largest] = array[largest]
    np.testing.assert_array_equal(out, expected)


def test_top_k_contracts_by_exactly_delta_where_all_magnitudes_are_equal() -> None:
    array = np.where(np.arange(1000) % 3, 1.0, -1.0)
    compressor = TopK(0.25)
    error = float(np.square(array - sent(compressor, array)).sum())
    assert error == pytest.approx((1 - compressor.delta(1000)) * 1000)


@given(length=st.integers(1, 300), ratio=RATIOS, seed=st.integers(0, 2**32))
def test_random_k_keeps_k_elements_as_they_are(length: int, ratio: float, seed: int) -> None:
    array = 1.0 + np.random.default_rng(seed).random(length)
    out = sent(RandomK(ratio), array, seed)
    assert np.count_nonzero(out) == math.ceil(ratio * length)
    np.testing.assert_array_equal(out[out != 0], array[out != 0])


@pytest.mark.parametrize("kept", [1, 3, 5, 7])
def test_random_k_keeps_each_element_as_often(kept: int) -> None:
    """Five standard deviations of a binomial distribution; by this E || x - C(x) ||^2 = (1 - k/n) || x ||^2 exactly."""
    rounds, length = 2000, 8
    counts = sum((sent(RandomK(kept / length), np.ones(length), seed) for seed in range(rounds)), np.zeros(length))
    share = kept / length
    assert np.all(np.abs(counts - rounds * share) < 5 * math.sqrt(rounds * share * (1 - share)))


def test_every_subset_is_drawn_as_often() -> None:
    rounds = 6000
    drawn = Counter(tuple(draw(seed, 6, 2).tolist()) for seed in range(rounds))
    expected = rounds / 15
    assert len(drawn) == 15
    assert all(abs(count - expected) < 5 * expected**0.5 for count in drawn.values())


def test_a_known_draw_so_that_versions_of_the_package_agree() -> None:
    assert draw(1, 1000, 5).tolist() == [86, 127, 689, 778, 885]


def test_random_k_s_wire_holds_no_indices() -> None:
    assert RandomK(0.5).nbytes(1000, np.float32) == 8 + 4 * 500
