"""Sparsification: k of n elements travel as they are, the others as nothing.

Stich, Cordonnier, Jaggi: "Sparsified SGD with Memory", NeurIPS 2018, Definition 2.2 and Lemma A.1: top-k keeps the k elements of
largest magnitude, random-k a subset of k drawn uniformly. Both contract with delta = k / n (random-k with equality in
expectation), and both are biased: with error feedback what did not travel comes later.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hvd_gossip.buffers.arrays import Array, compute_dtype, is_finite, module_of
from hvd_gossip.compressors.base import Compressor, Layout
from hvd_gossip.errors import ConfigError

Indices = npt.NDArray[np.int64]


class Sparsifier(Compressor):
    """Base of those that keep k = ceil(ratio n) of n elements.

    Args:
        ratio: k / n, in (0, 1].

    Raises:
        ConfigError: the ratio is out of range.
    """

    def __init__(self, ratio: float) -> None:
        if not 0.0 < ratio <= 1.0:
            raise ConfigError(f"compression_ratio must be above 0 and at most 1, not {ratio}")
        self.ratio = ratio

    def kept(self, length: int) -> int:
        """k: at least one of an array that is not empty."""
        return math.ceil(self.ratio * length)

    def delta(self, length: int) -> float:
        return self.kept(length) / length

    @abstractmethod
    def layout(self, length: int, dtype: Any) -> Layout:
        """What says which elements they are, and their values in the array's own type."""


class TopK(Sparsifier):
    """The k elements of largest magnitude, and where they are: 4 bytes an index."""

    name = "top-k"
    paper = "Stich, Cordonnier, Jaggi, Sparsified SGD with Memory, NeurIPS 2018"

    def layout(self, length: int, dtype: Any) -> Layout:
        if length > np.iinfo(np.uint32).max:
            raise ValueError(f"top-k numbers elements by 32 bits; an array of {length} is too long")
        return Layout((np.uint32, self.kept(length)), (dtype, self.kept(length)))

    def write(self, array: Array, fields: Sequence[Array], rng: np.random.Generator) -> None:
        # What is not finite counts as largest, and so travels: the receiver sees it.
        magnitudes = abs(array.astype(compute_dtype(array.dtype), copy=False))
        first = array.size - self.kept(array.size)
        indices, values = fields
        indices[...] = module_of(array).argpartition(magnitudes, first)[first:]
        values[...] = array[indices]

    def read(self, fields: Sequence[Array], out: Array) -> None:
        indices, values = fields
        out.fill(0)
        out[indices] = values


class RandomK(Sparsifier):
    """k elements drawn uniformly. The seed of the draw travels, 8 bytes, not the indices: the receiver draws them again."""

    name = "random-k"
    paper = "Stich, Cordonnier, Jaggi, Sparsified SGD with Memory, NeurIPS 2018"

    def layout(self, length: int, dtype: Any) -> Layout:
        return Layout((np.uint64, 1), (dtype, self.kept(length)))

    def write(self, array: Array, fields: Sequence[Array], rng: np.random.Generator) -> None:
        seed, values = fields
        drawn = int(rng.integers(2**63))
        seed[...] = drawn
        # The draw may miss what is not finite; the receiver must not.
        values[...] = array[self._indices(drawn, array)] if is_finite(array) else np.nan

    def read(self, fields: Sequence[Array], out: Array) -> None:
        seed, values = fields
        out.fill(0)
        out[self._indices(int(seed[0]), out)] = values

    def _indices(self, seed: int, array: Array) -> Array:
        """The same on every device: drawn on the host."""
        length, kept = array.size, self.kept(array.size)
        if 2 * kept <= length:
            indices = draw(seed, length, kept)
        else:
            indices = np.setdiff1d(np.arange(length), draw(seed, length, length - kept), assume_unique=True)
        return module_of(array).asarray(indices)


def draw(seed: int, length: int, count: int) -> Indices:
    """`count` of the numbers below `length`, at least twice as many, each subset as likely, ascending: the first distinct ones.

    From a bit generator's raw words, whose stream NumPy promises for ever: hosts with other versions draw the same.
    """
    stream, drawn = np.random.PCG64(seed), np.empty(0, np.int64)
    values, first = np.unique(drawn, return_index=True)
    while len(values) < count:
        drawn = np.concatenate([drawn, (stream.random_raw(count) % length).astype(np.int64)])
        values, first = np.unique(drawn, return_index=True)
    indices: Indices = np.sort(values[np.argsort(first)[:count]])
    return indices
