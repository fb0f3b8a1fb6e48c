"""QSGD: stochastic quantization to a few levels a bucket.

Alistarh, Grubic, Li, Tomioka, Vojnovic: "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NeurIPS 2017,
equation (4), with the paper's practical variant (section 4: buckets, and scaling by the largest magnitude, not the 2-norm).
A bucket of B elements travels as its largest magnitude M, float32, and s levels on either side of zero:

    C(x)_i = (M / s) q_i,      q_i = floor(y_i) + 1 with probability y_i - floor(y_i), else floor(y_i),      y_i = s x_i / M.

Unbiased. An element's variance is at most (M / s)^2 / 4, and M^2 at most the bucket's squared norm, so

    E || x - C(x) ||^2  <=  omega || x ||^2,       omega = B / (4 s^2),       delta = 1 - omega.

8 bits: s = 127, B = 512, omega < 0.008. 4 bits: s = 7, B = 64, omega < 0.33. Levels travel as they are, without the paper's
Elias coding, whose length depends on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvd_gossip.buffers.arrays import Array, module_of
from hvd_gossip.compressors.base import Compressor, Layout, random_uniform


class _Quantizer(Compressor):
    """Base of both widths.

    Class attributes:
        levels: s.
        bucket: B.
    """

    paper = "Alistarh et al., QSGD, NeurIPS 2017"
    unbiased = True
    levels: int
    bucket: int

    def omega(self, length: int) -> float:
        """Bound of the relative variance for arrays of this length."""
        return float(min(self.bucket, length) / (4 * self.levels**2))

    def delta(self, length: int) -> float:
        return 1.0 - self.omega(length)

    def buckets(self, length: int) -> int:
        """How many there are; the last may be shorter."""
        return -(-length // self.bucket)

    def quantize(self, array: Array, largest: Array, rng: np.random.Generator) -> Array:
        """largest <- each bucket's M; returns q, float32, with zeros after the array's end so that all buckets are full."""
        xp = module_of(array)
        padded = xp.zeros((len(largest), self.bucket), np.float32)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
            padded.reshape(-1)[: array.size] = array
        largest[...] = abs(padded).max(axis=1)
        usable = xp.isfinite(largest) & (largest > 0)
        padded[~usable] = 0
        # Divided first: s x_i may be beyond float32's range.
        scaled = padded / xp.where(usable, largest, np.float32(1))[:, None] * np.float32(self.levels)
        below = xp.floor(scaled)
        return (below + (random_uniform(rng, scaled) < scaled - below)).reshape(-1)

    def expand(self, largest: Array, q: Array, out: Array) -> None:
        """out <- (M / s) q."""
        parts = q.astype(np.float32) / np.float32(self.levels)
        with np.errstate(invalid="ignore"):  # a bucket whose M is not finite is not finite throughout
            out[...] = (module_of(out).repeat(largest, self.bucket)[: out.size] * parts[: out.size]).astype(out.dtype)


class Qsgd8(_Quantizer):
    """One byte an element: a signed level."""

    name = "qsgd-8"
    levels = 127
    bucket = 512

    def layout(self, length: int, dtype: Any) -> Layout:
        return Layout((np.float32, self.buckets(length)), (np.int8, length))

    def write(self, array: Array, fields: Sequence[Array], rng: np.random.Generator) -> None:
        largest, q = fields
        q[...] = self.quantize(array, largest, rng)[: array.size].astype(np.int8)

    def read(self, fields: Sequence[Array], out: Array) -> None:
        largest, q = fields
        self.expand(largest, q, out)


class Qsgd4(_Quantizer):
    """Half a byte an element: a signed level plus 8, the even elements' in the low halves."""

    name = "qsgd-4"
    levels = 7
    bucket = 64

    def layout(self, length: int, dtype: Any) -> Layout:
        return Layout((np.float32, self.buckets(length)), (np.uint8, -(-length // 2)))

    def write(self, array: Array, fields: Sequence[Array], rng: np.random.Generator) -> None:
        largest, pairs = fields
        halves = (self.quantize(array, largest, rng) + 8).astype(np.uint8)[: 2 * pairs.size]
        pairs[...] = halves[0::2] | (halves[1::2] << 4)

    def read(self, fields: Sequence[Array], out: Array) -> None:
        largest, pairs = fields
        halves = module_of(out).stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)
        self.expand(largest, halves.astype(np.int8) - 8, out)
