"""Full Normalization as its equations read, in float64 NumPy: raw second moments, derivatives of the outer function, Jacobians.

Lian and Liu (AISTATS 2019); Wang, Fang, Liu (Mathematical Programming 161, 2017). What the layers are compared with; it shares
none of their code and none of their rearrangements.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Equations:
    """A layer of C channels; inputs are (N, C, ...).

    Args:
        channels: C.
        momentum: the least alpha.
        eps: added to the variance.
        track_gradients: average the outer gradient over the steps.
        variance: that the estimates begin with.
    """

    def __init__(
        self, channels: int, momentum: float, eps: float, track_gradients: bool = True, variance: float = 1.0
    ) -> None:
        self.momentum, self.eps, self.track_gradients = momentum, eps, track_gradients
        self.first = np.zeros(channels)
        self.second = np.full(channels, variance)
        self.outer = np.zeros((2, channels))
        self.batches = 0

    @property
    def variance(self) -> Array:
        return self.second - self.first**2

    def forward(self, batch: Array, weight: Array, bias: Array) -> Array:
        """y; remembers what `backward` needs."""
        self.batches += 1
        self.alpha = max(self.momentum, 1 / self.batches)
        self.x, self.weight = rows(batch), weight
        self.first = (1 - self.alpha) * self.first + self.alpha * self.x.mean(0)
        self.second = (1 - self.alpha) * self.second + self.alpha * (self.x**2).mean(0)
        return unrolled(weight * (self.x - self.first) / np.sqrt(self.variance + self.eps) + bias, batch)

    def backward(self, upstream: Array) -> tuple[Array, Array, Array]:
        """(gradient of the input, of the weight, of the bias)."""
        d, deviation = rows(upstream), np.sqrt(self.variance + self.eps)
        normalized = (self.x - self.first) / deviation
        outer = np.stack([(self.weight * d).sum(0), (self.weight * d * normalized).sum(0)])
        if self.track_gradients:
            outer = self.outer = (1 - self.alpha) * self.outer + self.alpha * outer
        d_variance = -outer[1] / (2 * deviation**2)
        d_first = -outer[0] / deviation - 2 * self.first * d_variance
        n = len(self.x)
        dx = self.weight * d / deviation + d_first / n + d_variance * 2 * self.x / n
        return unrolled(dx, upstream), (d * normalized).sum(0), d.sum(0)


def rows(batch: Array) -> Array:
    """(N, C, ...) as (N..., C)."""
    return np.moveaxis(batch, 1, -1).reshape(-1, batch.shape[1]).astype(np.float64)


def unrolled(values: Array, like: Array) -> Array:
    """The inverse of `rows`."""
    moved = np.moveaxis(like, 1, -1)
    return np.moveaxis(values.reshape(moved.shape), -1, 1)
