"""No compression: the array's own bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvd_gossip.buffers.arrays import Array
from hvd_gossip.compressors.base import Compressor, Layout


class Identity(Compressor):
    """C(x) = x, delta = 1."""

    name = "identity"
    paper = "none: the array as it is"
    unbiased = True

    def delta(self, length: int) -> float:
        return 1.0

    def layout(self, length: int, dtype: Any) -> Layout:
        return Layout((dtype, length))

    def write(self, array: Array, fields: Sequence[Array], rng: np.random.Generator) -> None:
        (values,) = fields
        values[...] = array

    def read(self, fields: Sequence[Array], out: Array) -> None:
        (values,) = fields
        out[...] = values
