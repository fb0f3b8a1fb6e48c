"""The arithmetic of allreduce, on arrays of any module: combine two chunks, and finish a chunk that holds everybody's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hvd_gossip.buffers.arrays import module_of
from hvd_gossip.collectives.request import ReduceOp, Signature, is_floating
from hvd_gossip.transport.endpoint import Array

_UFUNCS = {
    ReduceOp.AVERAGE: "add",
    ReduceOp.SUM: "add",
    ReduceOp.MIN: "minimum",
    ReduceOp.MAX: "maximum",
    ReduceOp.PRODUCT: "multiply",
}


@lru_cache(maxsize=256)
def accumulator_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type to add in: float32 for floating types of at most two bytes, else the type itself."""
    return np.dtype(np.float32) if dtype.itemsize <= 2 and is_floating(dtype) else dtype


class Reduction:
    """How `count` ranks' elements of one dtype become one.

    Sum and Average of floating types take all factors together, once, on the finished sum; for the other cases
    `prescale` must be applied to the input first (`prescaled`). Used within `Memory.computing`.

    Args:
        like: an array of the elements' type, on their device.
        count: what an average divides by.
        zeros: whether some of the `count` ranks put in zeros, which nobody sends.

    Attributes:
        dtype: of the elements.
        accumulator: type of partial results.
        prescale: factor that remains to be applied to the input by `prescaled`.
    """

    __slots__ = ("_divisor", "_factor", "_floating", "_ufunc", "_zeros", "accumulator", "dtype", "prescale", "widened")

    def __init__(
        self,
        like: Array,
        op: ReduceOp | int,
        count: int,
        prescale: float = 1.0,
        postscale: float = 1.0,
        zeros: bool = False,
    ) -> None:
        xp = module_of(like)
        self.dtype: np.dtype[Any] = like.dtype
        self.accumulator = accumulator_dtype(self.dtype)
        self.widened = self.accumulator != self.dtype
        self._ufunc = getattr(xp, _UFUNCS[ReduceOp(op)])
        self._floating = self.dtype.kind == "c" or is_floating(self.dtype)
        folds = self._floating and op in (ReduceOp.AVERAGE, ReduceOp.SUM)
        self._factor = prescale * postscale if folds else postscale
        self.prescale = 1.0 if folds else prescale
        self._divisor = count if op == ReduceOp.AVERAGE else 1
        self._zeros = zeros and op not in (ReduceOp.AVERAGE, ReduceOp.SUM)

    @property
    def is_identity(self) -> bool:
        """Whether one rank's result is its input."""
        return self.prescale == 1.0 and self._factor == 1.0 and self._divisor == 1 and not self._zeros

    def combine(self, out: Array, a: Array, b: Array) -> None:
        """out <- a (op) b. `out` has the accumulator's type, `a` and `b` that or the elements'."""
        if self.widened:
            self._ufunc(a, b, out=out, dtype=self.accumulator)
        else:
            self._ufunc(a, b, out=out)

    def finish(self, out: Array, total: Array) -> None:
        """out <- total, averaged and scaled, rounded once. `total`, of the accumulator's type, may be `out`; else it is
        used as scratch."""
        self._scale(total)
        if out is not total:
            out[...] = total

    def prescaled(self, out: Array, values: Array) -> None:
        """out <- values * prescale, in the elements' type."""
        module_of(values).multiply(values, self.prescale, out=out, casting="unsafe")

    def reduce_all(self, parts: Sequence[Array], out: Array) -> None:
        """out <- all the parts, combined in their order. For results small enough to have all parts in one place."""
        if self.prescale != 1.0:
            parts = [self._prescaled_copy(part) for part in parts]
        if self.widened:
            total = parts[0].astype(self.accumulator)
        else:
            total = out
            total[...] = parts[0]
        for part in parts[1:]:
            self.combine(total, total, part)
        self.finish(out, total)

    def reduce_one(self, out: Array, values: Array) -> None:
        """out <- the result of a single rank's values."""
        self.reduce_all([values], out)

    def _prescaled_copy(self, part: Array) -> Array:
        copy = module_of(part).empty_like(part)
        self.prescaled(copy, part)
        return copy

    def _scale(self, total: Array) -> None:
        if self._zeros:
            self._ufunc(total, total.dtype.type(0), out=total)
        if self._factor != 1.0:
            casting = "same_kind" if self._floating else "unsafe"
            module_of(total).multiply(total, self._factor, out=total, casting=casting)
        if self._divisor == 1:
            return
        if self._floating:
            module_of(total).divide(total, self._divisor, out=total)
        elif self._divisor <= np.iinfo(self.dtype).max:
            module_of(total).floor_divide(total, self._divisor, out=total)
        else:
            total[...] = total.astype(np.int64) // self._divisor


def reduction_of(signature: Signature, like: Array, count: int, zeros: bool = False) -> Reduction:
    """The reduction that an operation's signature asks for; see Reduction."""
    return Reduction(like, signature.op, count, signature.prescale, signature.postscale, zeros)
