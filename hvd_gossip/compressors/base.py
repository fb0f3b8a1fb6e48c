"""What every compressor does: an array to a wire of known size, and back.

C is a compressor with parameter delta in (0, 1] (Stich, Cordonnier, Jaggi: "Sparsified SGD with Memory", NeurIPS 2018; Koloskova,
Stich, Jaggi, ICML 2019, Assumption 1) if for every x

    E || x - C(x) ||^2  <=  (1 - delta) || x ||^2.

Methods with error feedback, such as ChocoSGD, converge with any such C, biased or not. It is unbiased if E C(x) = x.

A wire's size follows from the array's length and dtype alone, so that a receiver can post its receive before it is told
anything. Arithmetic is in float32. An array with an element that is not finite, or beyond float32's range where values are
computed with, decompresses to an array that is not finite either: the receiver finds out as it does without compression.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from hvd_gossip.buffers.arrays import Array, is_floating, module_of

ALIGNMENT = 8
"""Every field of a wire begins at a multiple of so many bytes: a GPU cannot read a number from anywhere else."""


class Layout:
    """The fields of a wire, one after the other.

    Args:
        fields: (dtype, number of elements) of each.

    Attributes:
        nbytes: bytes of the whole wire.
    """

    def __init__(self, *fields: tuple[Any, int]) -> None:
        self._fields: list[tuple[slice, np.dtype[Any]]] = []
        self.nbytes = 0
        for kind, count in fields:
            dtype: np.dtype[Any] = np.dtype(kind)
            used = count * dtype.itemsize
            self._fields.append((slice(self.nbytes, self.nbytes + used), dtype))
            self.nbytes += -(-used // ALIGNMENT) * ALIGNMENT

    def views(self, wire: Array) -> list[Array]:
        """The fields as arrays of their own types that share the wire's memory.

        Raises:
            ValueError: the wire has another size.
        """
        if wire.size != self.nbytes:
            raise ValueError(f"a wire of {wire.size} bytes arrived where {self.nbytes} were expected")
        return [wire[where].view(dtype) for where, dtype in self._fields]


class Compressor(ABC):
    """Base of the compressors; subclasses are registered in `hvd_gossip.compressors.registry`. They keep no state.

    Class attributes:
        name: what `compressor` says.
        paper: authors, title, venue and year.
        unbiased: whether the mean of C(x) over its random choices is x.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    unbiased: ClassVar[bool] = False

    @abstractmethod
    def delta(self, length: int) -> float:
        """The contraction that holds for every array of this length, 1 or more: 1 is lossless."""

    def typical_delta(self, length: int) -> float:
        """The contraction to expect of an array of independent normal elements, at least; `delta` where that says enough."""
        return self.delta(length)

    @abstractmethod
    def layout(self, length: int, dtype: Any) -> Layout:
        """The fields of the wire of an array."""

    @abstractmethod
    def write(self, array: Array, fields: Sequence[Array], rng: np.random.Generator) -> None:
        """Fills a wire's fields, zero so far, with a compressed array of 1 element or more."""

    @abstractmethod
    def read(self, fields: Sequence[Array], out: Array) -> None:
        """out, of 1 element or more <- what the fields say."""

    def nbytes(self, length: int, dtype: Any) -> int:
        """Bytes of the wire of an array of this length and dtype."""
        return self.layout(length, dtype).nbytes

    def compress(self, array: Array, rng: np.random.Generator) -> Array:
        """C(array) as a wire.

        Args:
            array: 1-D, contiguous, float64, float32, float16 or bfloat16; NumPy's, or CuPy's.
            rng: makes the random choices, if there are any: equal generators make equal wires.

        Returns:
            uint8, (nbytes(length, dtype),), of the array's module; it shares no memory with the array.

        Raises:
            ValueError: the array is not that.
        """
        if array.ndim != 1 or not array.flags.c_contiguous or not is_floating(array.dtype):
            raise ValueError(
                f"only 1-D contiguous arrays of a floating type are compressed, not {array.dtype} of shape {array.shape}"
            )
        layout = self.layout(array.size, array.dtype)
        wire = module_of(array).zeros(layout.nbytes, np.uint8)
        if array.size:
            self.write(array, layout.views(wire), rng)
        return wire

    def decompress(self, wire: Array, out: Array) -> None:
        """out <- the array that the wire was made of, as far as it says.

        Args:
            wire: what `compress` returned, of out's module.
            out: of the compressed array's length and dtype.

        Raises:
            ValueError: the wire's size does not fit `out`.
        """
        fields = self.layout(out.size, out.dtype).views(wire)
        if out.size:
            self.read(fields, out)


def random_uniform(rng: np.random.Generator, like: Array) -> Array:
    """Uniform numbers in [0, 1), float32, of the shape and module of `like`."""
    xp = module_of(like)
    stream = rng if xp is np else xp.random.default_rng(int(rng.integers(2**63)))
    return stream.random(like.shape, dtype=np.float32)
