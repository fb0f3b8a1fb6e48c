"""Scaled sign: one bit an element.

Karimireddy, Rebjock, Stich, Jaggi: "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019, Algorithm 1:

    C(x) = (||x||_1 / d) sign(x),          || x - C(x) ||^2 = || x ||^2 - ||x||_1^2 / d,

so delta is ||x||_1^2 / (d ||x||_2^2), the density of x (their Lemma 8): between 1/d, for one element among zeros, and 1, for
equal magnitudes; 2/pi for normal ones. Zero counts as positive, which changes neither line. Biased and deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hvd_gossip.buffers.arrays import Array, module_of
from hvd_gossip.compressors.base import Compressor, Layout


class Sign(Compressor):
    """The mean magnitude, float32, and a bit an element."""

    name = "sign"
    paper = "Karimireddy et al., Error Feedback Fixes SignSGD and other Gradient Compression Schemes, ICML 2019"

    def delta(self, length: int) -> float:
        return 1.0 / length

    def typical_delta(self, length: int) -> float:
        return 2 / math.pi

    def layout(self, length: int, dtype: Any) -> Layout:
        return Layout((np.float32, 1), (np.uint8, -(-length // 8)))

    def write(self, array: Array, fields: Sequence[Array], rng: np.random.Generator) -> None:
        scale, bits = fields
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
            single = array.astype(np.float32)
        # A sum of many finite magnitudes may be beyond float32's range although their mean is not.
        scale[...] = abs(single).mean(dtype=np.float64)
        bits[...] = module_of(array).packbits(single >= 0)

    def read(self, fields: Sequence[Array], out: Array) -> None:
        scale, bits = fields
        xp = module_of(out)
        positive = xp.unpackbits(bits)[: out.size].astype(bool)
        out[...] = xp.where(positive, scale, -scale).astype(out.dtype)
