"""Classifiers that simulated workers train, each on its own share of labelled data; in NumPy, all gradients written out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hvd_gossip.simulate_problems import Vector


class Labelled(NamedTuple):
    """Samples of a classification: inputs (rows, features), floating; labels (rows,), integers from 0."""

    inputs: Vector
    labels: Vector


class SoftmaxRegression:
    """Cross-entropy of a linear classifier, or of a network of one hidden layer of tanh; a `Problem`.

    f_i is the mean over worker i's samples, plus decay/2 |x|^2; x is all weights and biases in one vector.

    Args:
        shards: each worker's samples.
        classes: number of classes.
        hidden: width of the hidden layer; 0: none, and f is convex.
        batch: samples drawn for a gradient; None takes all.
        decay: weight decay.
        dtype: of the parameters.
        seed: seeds the initial weights of a network, the same on all workers.

    Raises:
        ValueError: a worker without samples.
    """

    def __init__(
        self,
        shards: Sequence[Labelled],
        *,
        classes: int,
        hidden: int = 0,
        batch: int | None = None,
        decay: float = 0.0,
        dtype: Any = np.float64,
        seed: int = 0,
    ) -> None:
        empty = [rank for rank, shard in enumerate(shards) if not len(shard.labels)]
        if empty:
            raise ValueError(f"workers {empty} have no samples")
        self.shards, self.batch, self.decay = shards, batch, decay
        features = shards[0].inputs.shape[1]
        widths = [features, hidden, classes] if hidden else [features, classes]
        self.shapes = [(before + 1, after) for before, after in pairwise(widths)]
        rng = np.random.default_rng(seed)
        layers = [_initial(rng, shape) if hidden else np.zeros(shape) for shape in self.shapes]
        self._initial = np.concatenate([layer.ravel() for layer in layers]).astype(dtype)

    def initial(self, rank: int) -> Vector:
        return self._initial.copy()

    def gradient(self, rank: int, x: Vector, rng: np.random.Generator) -> Vector:
        inputs, labels = self.shards[rank]
        if self.batch is not None:
            drawn = rng.integers(len(labels), size=self.batch)
            inputs, labels = inputs[drawn], labels[drawn]
        layers = self._layers(x)
        values = self._forward(layers, inputs)
        upstream = _softmax(values[-1])
        upstream[np.arange(len(labels)), labels] -= 1
        upstream /= len(labels)
        gradients = []
        for layer, before in zip(reversed(layers), reversed(values[:-1]), strict=True):
            gradients.append(np.concatenate([before.T @ upstream, upstream.sum(0, keepdims=True)]).ravel())
            upstream = (upstream @ layer[:-1].T) * (1 - before**2)
        gradient: Vector = np.concatenate(gradients[::-1]) + self.decay * x
        return gradient.astype(x.dtype)

    def loss(self, x: Vector) -> float:
        """f(x), the mean over the workers of f_i(x)."""
        decay = self.decay / 2 * float(np.square(x.astype(np.float64)).sum())
        return float(np.mean([self._cross_entropy(x, shard) for shard in self.shards])) + decay

    def accuracy(self, x: Vector, data: Labelled) -> float:
        """Share of samples that the classifier x labels rightly."""
        scores = self._forward(self._layers(x), data.inputs)[-1]
        return float(np.mean(scores.argmax(axis=1) == data.labels))

    def _layers(self, x: Vector) -> list[Vector]:
        """Weights with the biases as their last row, (inputs + 1, outputs), a layer."""
        ends = np.cumsum([rows * columns for rows, columns in self.shapes])[:-1]
        return [part.reshape(shape) for part, shape in zip(np.split(x, ends), self.shapes, strict=True)]

    @staticmethod
    def _forward(layers: Sequence[Vector], inputs: Vector) -> list[Vector]:
        """The inputs of all layers, and the last one's scores."""
        values = [inputs]
        for number, layer in enumerate(layers):
            scores = values[-1] @ layer[:-1] + layer[-1]
            values.append(scores if number == len(layers) - 1 else np.tanh(scores))
        return values

    def _cross_entropy(self, x: Vector, data: Labelled) -> float:
        scores = self._forward(self._layers(x), data.inputs)[-1]
        right = scores[np.arange(len(data.labels)), data.labels]
        highest = scores.max(axis=1)
        return float(np.mean(np.log(np.exp(scores - highest[:, None]).sum(axis=1)) + highest - right))


def share_by_label(labels: Vector, size: int, seed: int = 0) -> list[Vector]:
    """Sorts samples by label and cuts them into `size` equal runs: a worker has one class or two.

    Returns:
        For each worker the indices of its samples; the seed says which run is whose.
    """
    order = np.argsort(labels, kind="stable")
    runs = np.array_split(order, size)
    return [runs[place] for place in np.random.default_rng(seed).permutation(size)]


def share_by_dirichlet(labels: Vector, size: int, alpha: float, seed: int = 0) -> list[Vector]:
    """Equal shares whose classes are in proportions drawn from Dirichlet(alpha, ..., alpha), another draw for each worker.

    After Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019:
    alpha to infinity gives everybody the same, alpha to 0 one class each. Where a class is used up, the worker's other
    proportions are scaled up; what is left over when the shares are full belongs to nobody (less than `size` samples).

    Returns:
        For each worker the indices of its samples.
    """
    rng = np.random.default_rng((seed, size))
    left = [rng.permutation(np.flatnonzero(labels == one)).tolist() for one in np.unique(labels)]
    shares = []
    for _ in range(size):
        weights = np.maximum(rng.dirichlet([alpha] * len(left)), 1e-12)
        share = []
        for _ in range(len(labels) // size):
            available = weights * [len(one) > 0 for one in left]
            share.append(left[rng.choice(len(left), p=available / available.sum())].pop())
        shares.append(np.array(share))
    return shares


def _initial(rng: np.random.Generator, shape: tuple[int, int]) -> Vector:
    """Weights of variance 1 / inputs, biases zero."""
    weights: Vector = rng.standard_normal(shape) / np.sqrt(shape[0] - 1)
    weights[-1] = 0
    return weights


def _softmax(scores: Vector) -> Vector:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Vector = powers / powers.sum(axis=1, keepdims=True)
    return shares
