"""The equations of accumulated Adam in plain NumPy, for the tests of both frameworks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def accumulated_adam(
    x: Vector,
    gradients: Sequence[Vector],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    s: int = 4,
    weight_decay: float = 0.0,
    decoupled: bool = True,
) -> Vector:
    """x after as many steps as there are gradients; Wang et al., ICLR 2025. s = 1 is Adam (Kingma and Ba, ICLR 2015)."""
    beta1, beta2 = betas
    m, v, a = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gradients, 1):
        T = math.ceil(t / s)
        if decoupled:
            x = x - lr * weight_decay * x
        else:
            g = g + weight_decay * x
        own_m, own_v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        x = x - lr * (own_m / (1 - beta1**T)) / (np.sqrt(own_v / (1 - beta2**T)) + eps)
        a = a + g / s
        if t % s == 0:
            m, v, a = beta1 * m + (1 - beta1) * a, beta2 * v + (1 - beta2) * a**2, np.zeros_like(a)
    return x
