"""A model whose training NumPy can follow, with data of which every rank knows every rank's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hvd_gossip.tensorflow as hvd
import keras
import numpy as np
from hvd_gossip.tensorflow.arrays import Array

from hvd_gossip import runtime
from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.limits import limit_weights
from tests.ranks import UNDER_TEST

GOSSIP = [name for name, algorithm in UNDER_TEST.items() if algorithm.averages == "parameters"]
SYNCHRONOUS = [name for name in GOSSIP if ALGORITHMS[name].synchronous]
FEATURES, OUTPUTS, ROWS = 4, 3, 8
Weights = list[Array]
"""Of a linear layer: (FEATURES, OUTPUTS) and (OUTPUTS,)."""


def initial(rank: int) -> Weights:
    """A rank's first weights, float32."""
    generator = np.random.default_rng(100 + rank)
    return [generator.normal(size=shape).astype(np.float32) for shape in ((FEATURES, OUTPUTS), (OUTPUTS,))]


def data(rank: int, steps: int = 1) -> tuple[Array, Array]:
    """A rank's inputs and targets: ROWS a step."""
    generator = np.random.default_rng(200 + rank)
    rows = ROWS * steps
    return (
        generator.normal(size=(rows, FEATURES)).astype(np.float32),
        generator.normal(size=(rows, OUTPUTS)).astype(np.float32),
    )


def batch(rank: int, step: int, steps: int) -> tuple[Array, Array]:
    """A rank's inputs and targets of one step."""
    rows = slice(step * ROWS, (step + 1) * ROWS)
    inputs, targets = data(rank, steps)
    return inputs[rows], targets[rows]


def make_model(weights: Weights | None = None) -> Any:
    """A linear layer; by default with this rank's own first weights."""
    model = keras.Sequential([keras.layers.Input((FEATURES,)), keras.layers.Dense(OUTPUTS)])
    model.set_weights(initial(hvd.rank()) if weights is None else weights)
    return model


def fit(model: Any, optimizer: Any, steps: int = 1, **options: Any) -> Any:
    """Trains with this rank's data, one epoch of so many steps, without shuffling."""
    model.compile(optimizer=optimizer, loss="mse", **options)
    inputs, targets = data(hvd.rank(), steps)
    model.fit(inputs, targets, batch_size=ROWS, epochs=1, verbose=0, shuffle=False)
    return model


def gradient(weights: Weights, inputs: Array, targets: Array) -> Weights:
    """Of the mean squared error, float64."""
    kernel, bias = (weight.astype(np.float64) for weight in weights)
    error = 2 * (inputs.astype(np.float64) @ kernel + bias - targets) / targets.size
    return [inputs.astype(np.float64).T @ error, error.sum(0)]


def plus(one: Weights, other: Weights, factor: float = 1.0) -> Weights:
    return [a + factor * b for a, b in zip(one, other, strict=True)]


def total(many: Sequence[Weights], factors: Sequence[float]) -> Weights:
    return [sum(f * w for f, w in zip(factors, same, strict=True)) for same in zip(*many, strict=True)]


def mean(many: Sequence[Weights]) -> Weights:
    return total(many, [1 / len(many)] * len(many))


def mixing_matrix(algorithm: str, number: int, **settings: Any) -> Array:
    """Row i: the weights with which rank i takes what all ranks have in their exchange of this number."""
    now = runtime.current()
    topology = now.make_topology(now.config.override({"algorithm": algorithm, **settings}))
    matrix = np.zeros((hvd.size(), hvd.size()))
    for rank in range(hvd.size()):
        for peer, weight in topology.in_weights(rank, number).items():
            matrix[rank, peer] = weight
    if ALGORITHMS[algorithm].needs == "column-stochastic":
        matrix += np.diag(1 - matrix.sum(0))
    else:
        matrix += np.diag(1 - matrix.sum(1))
    return matrix


def limit_of(algorithm: str) -> Weights:
    """What workers that begin with `initial` come to without updates."""
    return total([initial(rank) for rank in range(hvd.size())], limit_weights(algorithm, hvd.size()))


def everybodys(weights: Weights) -> list[Weights]:
    """All ranks' weights."""
    return hvd.allgather_object(weights)


def close(one: Weights, other: Weights, tolerance: float = 1e-6) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


Update = Callable[[Weights, Array, Array], Weights]


def sgd(rate: float) -> Update:
    """The update of plain gradient descent."""
    return lambda weights, inputs, targets: [-rate * g for g in gradient(weights, inputs, targets)]


def save(model: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras's own, of NumPy 2
        model.save(path)
