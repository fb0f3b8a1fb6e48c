"""What simulated workers train on: small problems whose solution is known."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[Any]


class Problem(Protocol):
    """A function to minimize, f(x) = mean over ranks of f_i(x)."""

    def initial(self, rank: int) -> Vector:
        """The parameters that a rank begins with: 1-D, floating, of one length and dtype on all ranks."""

    def gradient(self, rank: int, x: Vector, rng: np.random.Generator) -> Vector:
        """A stochastic gradient of f_rank at x; its randomness comes from `rng`. Does not change x."""


class LeastSquares:
    """f_i(x) = |A_i x - b_i|^2 / (2 rows), every rank with its own data.

    Args:
        size: number of ranks.
        dimension: length of x.
        rows: samples a rank.
        skew: how much the ranks' own solutions differ; 0: only by noise.
        noise: deviation of the noise in b.
        batch: samples drawn for a gradient; None takes all (the exact gradient of f_i).
        dtype: of the parameters.
        seed: seeds the data.

    Attributes:
        optimum: the minimum of f, float64 (dimension,).
    """

    def __init__(
        self,
        size: int,
        *,
        dimension: int = 8,
        rows: int = 32,
        skew: float = 0.0,
        noise: float = 0.1,
        batch: int | None = None,
        dtype: Any = np.float64,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng((seed, size, dimension))
        self.dtype = np.dtype(dtype)
        self.batch = batch
        self.inputs = rng.standard_normal((size, rows, dimension))
        truth = rng.standard_normal(dimension) + skew * rng.standard_normal((size, dimension))
        self.outputs = np.einsum("ird,id->ir", self.inputs, truth) + noise * rng.standard_normal((size, rows))
        # Of each rank's exact gradient H x - g.
        self._hessians = np.einsum("irk,irl->ikl", self.inputs, self.inputs) / rows
        self._linear = np.einsum("ird,ir->id", self.inputs, self.outputs) / rows
        self.optimum: Vector = np.linalg.lstsq(self.inputs.reshape(-1, dimension), self.outputs.ravel(), rcond=None)[0]

    def initial(self, rank: int) -> Vector:
        return np.zeros(self.inputs.shape[2], self.dtype)

    def gradient(self, rank: int, x: Vector, rng: np.random.Generator) -> Vector:
        gradient: Vector
        if self.batch is None:
            gradient = self._hessians[rank].dot(x) - self._linear[rank]
        else:
            drawn = rng.integers(self.outputs.shape[1], size=self.batch)
            inputs, outputs = self.inputs[rank, drawn], self.outputs[rank, drawn]
            gradient = (inputs @ x - outputs) @ inputs / len(outputs)
        return gradient.astype(self.dtype, copy=False)

    def loss(self, x: Vector) -> float:
        """f(x)."""
        return float(np.mean((self.inputs @ x - self.outputs) ** 2) / 2)


class Still:
    """No gradient: parameters move by mixing alone.

    Args:
        values: (size, dimension), each rank's parameters.
    """

    def __init__(self, values: Vector) -> None:
        self.values = values
        self._zero = np.zeros(values.shape[1], values.dtype)

    def initial(self, rank: int) -> Vector:
        values: Vector = self.values[rank]
        return values

    def gradient(self, rank: int, x: Vector, rng: np.random.Generator) -> Vector:
        return self._zero
