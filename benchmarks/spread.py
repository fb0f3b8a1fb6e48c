"""Medians and quartiles of repeated measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing.

    Attributes:
        values: in the order in which they were made; not empty.
    """

    values: tuple[float, ...]

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        """Raises ValueError if there are none, or one is not a finite number."""
        collected = tuple(float(value) for value in values)
        if not collected or not all(map(math.isfinite, collected)):
            raise ValueError(f"expected at least one measurement, all finite, not {collected}")
        return Spread(collected)

    @property
    def median(self) -> float:
        return self._quantile(0.5)

    @property
    def low(self) -> float:
        """The first quartile."""
        return self._quantile(0.25)

    @property
    def high(self) -> float:
        """The third quartile."""
        return self._quantile(0.75)

    def __truediv__(self, other: Spread | float) -> Spread:
        return _paired(lambda mine, theirs: mine / theirs, self, other)

    def __sub__(self, other: Spread | float) -> Spread:
        return _paired(lambda mine, theirs: mine - theirs, self, other)

    def __mul__(self, factor: float) -> Spread:
        return Spread(tuple(value * factor for value in self.values))

    def _quantile(self, share: float) -> float:
        return float(np.quantile(self.values, share))


def inverse(spread: Spread) -> Spread:
    """1 / x of every measurement x."""
    return Spread(tuple(1.0 / value for value in spread.values))


def _paired(combine: Callable[[float, float], float], mine: Spread, other: Spread | float) -> Spread:
    """Combines measurements that were made next to each other, so that what disturbed one pair stays in that pair."""
    theirs: Sequence[float] = other.values if isinstance(other, Spread) else [other] * len(mine.values)
    return Spread(tuple(combine(one, two) for one, two in zip(mine.values, theirs, strict=True)))
