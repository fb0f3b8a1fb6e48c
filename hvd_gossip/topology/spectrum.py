"""Spectral gaps and eigenvalues of mixing matrices given densely.

All of it is O(size^3) a matrix: a second or so for 1,024 workers. Topologies whose spectrum is known in closed form
(`cayley`, `matching`) do not come here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

TOLERANCE = 1e-6
"""How far from 1 a row or column may sum: wide enough for weights that were stored as float32."""
_ZERO = 1e-12


def period_gap(matrix: Callable[[int], Matrix], rounds: int) -> float:
    """1 minus the rate at which one period contracts the distance to consensus, a round (geometric mean).

    Doubly stochastic matrices: the rate is the second largest singular value of their product. Matrices that are only
    column-stochastic (push-sum, whose limit is not the uniform vector) or only row-stochastic: the second largest
    modulus of the product's eigenvalues, the asymptotic rate.

    Args:
        matrix: gives W(k), (size, size) and column- or row-stochastic, for k in range(rounds).
        rounds: length of the period.

    Returns:
        The gap in [0, 1]: 0 never averages, 1 averages exactly within the period.
    """
    if all(is_doubly_stochastic(matrix(k)) for k in range(rounds)):
        return gap_of_rate(_rate(matrix, rounds, _norm))
    return gap_of_rate(convergence_rate(matrix, rounds))


def gap_of_rate(rate: float) -> float:
    """1 - rate, kept inside [0, 1] against rounding."""
    return min(max(1.0 - rate, 0.0), 1.0)


def convergence_rate(matrix: Callable[[int], Matrix], rounds: int) -> float:
    """The second largest modulus of the product's eigenvalues, a round: below 1 exactly if the period averages."""
    return _rate(matrix, rounds, _spectral_radius)


def _rate(matrix: Callable[[int], Matrix], rounds: int, measure: Callable[[Matrix], float]) -> float:
    """The measure of one period's product without the consensus direction, a round (geometric mean)."""
    product, log_scale = np.eye(len(matrix(0))), 0.0
    for k in range(rounds):
        product = _deflated(matrix(k)) @ product
        # Kept at norm 1, so that long periods do not fall below what a float64 can tell from exact averaging.
        norm = float(np.linalg.norm(product))
        if norm < _ZERO:
            return 0.0
        product /= norm
        log_scale += math.log(norm)
    rate = measure(product)
    return math.exp((log_scale + math.log(rate)) / rounds) if rate > _ZERO else 0.0


def _deflated(matrix: Matrix) -> Matrix:
    """W (I - J), J the averaging matrix: the eigenvalue 1 of consensus drops out, of products of these as well."""
    deflated: Matrix = matrix - matrix.mean(axis=1, keepdims=True)
    return deflated


def is_doubly_stochastic(matrix: Matrix) -> bool:
    """Whether all rows and columns sum to 1 (to `TOLERANCE`)."""
    sums = np.concatenate([matrix.sum(axis=0), matrix.sum(axis=1)])
    return bool(np.all(np.abs(sums - 1.0) <= TOLERANCE))


def smallest_eigenvalue(matrix: Matrix) -> float:
    """lambda_min of a symmetric (size, size) matrix."""
    return float(np.linalg.eigvalsh(matrix)[0])


def _norm(matrix: Matrix) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False)[0])


def _spectral_radius(matrix: Matrix) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max())
