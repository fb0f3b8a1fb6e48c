"""What one `model.fit` gives: the weights of each algorithm's mathematics, computed by NumPy for all ranks."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import numpy as np

from hvd_gossip import runtime
from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.config import mixing_settings
from hvd_gossip.simulate import simulate
from tests.limits import mean_moves
from tests.tensorflow_frontend.keras.models import (
    FEATURES,
    GOSSIP,
    OUTPUTS,
    SYNCHRONOUS,
    Weights,
    batch,
    close,
    everybodys,
    fit,
    gradient,
    initial,
    limit_of,
    make_model,
    mean,
    mixing_matrix,
    plus,
    sgd,
    total,
)

RATE = 0.25
TRANSCRIBED = ("dpsgd", "sgp")
"""Algorithms whose mathematics this file writes down itself."""


def check_allreduce_gives_equal_weights_from_different_data() -> None:
    model = fit(make_model(initial(0)), hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE)))
    gradients = mean([gradient(initial(0), *batch(rank, 0, 1)) for rank in range(hvd.size())])
    close(model.get_weights(), plus(initial(0), gradients, -RATE))
    for weights in everybodys(model.get_weights()):
        close(weights, model.get_weights(), tolerance=0.0)


class FirstSteps:
    """Every rank's gradients of `models.batch` as a problem of the simulator, which notes the model of each step.

    Attributes:
        seen: by rank, the weights for which it computed a gradient, in order.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.seen: list[list[Weights]] = [[] for _ in range(hvd.size())]

    def initial(self, rank: int) -> Any:
        return np.concatenate([weight.ravel() for weight in initial(rank)])

    def gradient(self, rank: int, x: Any, rng: Any) -> Any:
        first = FEATURES * OUTPUTS
        weights = [x[:first].reshape(FEATURES, OUTPUTS).copy(), x[first:].copy()]
        self.seen[rank].append(weights)
        number = min(len(self.seen[rank]) - 1, self._steps - 1)
        parts = gradient(weights, *batch(rank, number, self._steps))
        return np.concatenate([part.ravel() for part in parts]).astype(x.dtype)


def simulated(algorithm: str, steps: int, order: str) -> Weights:
    """This rank's weights after some steps of the very algorithm in the simulator, whose mathematics NumPy transcribes there
    (tests/algorithms)."""
    now, task = runtime.current(), FirstSteps(steps)
    config = now.config.override({"algorithm": algorithm, "mixing_order": order})
    options = {"topology": now.make_topology(config), "settings": mixing_settings(config), "learning_rate": RATE}
    simulate(algorithm, task, size=hvd.size(), steps=steps + 1, **options)
    return task.seen[hvd.rank()][steps]


def check_every_synchronous_algorithm_does_what_it_does_in_the_simulator() -> None:
    steps = 3
    for algorithm in SYNCHRONOUS:
        for order in ALGORITHMS[algorithm].orders:
            settings = {"algorithm": algorithm, "mixing_order": order}
            model = fit(make_model(), hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), **settings), steps)
            try:
                close(model.get_weights(), simulated(algorithm, steps, order))
            except AssertionError as error:
                raise AssertionError(f"{algorithm}, {order}") from error


def check_synchronous_gossip_in_the_papers_order() -> None:
    """x(k+1) = sum_j W_ij (x_j(k) + u_j(x_j(k))); push-sum: z = x / w."""
    for algorithm in TRANSCRIBED:
        optimizer = hvd_keras.DistributedOptimizer(
            keras.optimizers.SGD(RATE), algorithm=algorithm, mixing_order="sequential"
        )
        steps = 3
        model = fit(make_model(), optimizer, steps)
        close(model.get_weights(), _sequential(algorithm, steps)[hvd.rank()])


def check_synchronous_gossip_beside_the_gradient() -> None:
    """x(k+1) = sum_j W_ij x_j(k) + u_i(x_i(k)), the first exchange being that of x(1). (Push-sum is D-PSGD with two ranks.)"""
    if hvd.size() > 2:
        return
    for algorithm in TRANSCRIBED:
        optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), algorithm=algorithm)
        steps = 3
        model = fit(make_model(), optimizer, steps)
        weights = [initial(rank) for rank in range(hvd.size())]
        for step in range(steps):
            updates = [sgd(RATE)(w, *batch(rank, step, steps)) for rank, w in enumerate(weights)]
            if step:
                matrix = mixing_matrix(algorithm, step - 1)
                weights = [total(weights, row) for row in matrix]
            weights = [plus(w, u) for w, u in zip(weights, updates, strict=True)]
        close(model.get_weights(), weights[hvd.rank()])


def check_asynchronous_gossip_keeps_the_sum_of_all_updates() -> None:
    """Whatever has been exchanged by now: the mean of all workers is that of their first weights and updates."""
    optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), algorithm="adpsgd")
    model = fit(make_model(), optimizer)
    expected = mean([plus(initial(r), sgd(RATE)(initial(r), *batch(r, 0, 1))) for r in range(hvd.size())])
    with hvd.consensus(model):
        close(model.get_weights(), expected)


def check_without_updates_all_workers_come_to_agree() -> None:
    for algorithm in GOSSIP:
        model = make_model()
        optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(0.0), algorithm=algorithm)
        first = hvd.consensus_distance(make_model())
        fit(model, optimizer, 100 if mean_moves(algorithm, hvd.size()) else 1)
        expected = limit_of(algorithm)
        for _ in range(100):
            model.fit(*batch(hvd.rank(), 0, 1), batch_size=2, verbose=0)
            if hvd.consensus_distance(model) <= 0.01 * first:
                break
        with hvd.consensus(model):
            close(model.get_weights(), expected)
        assert hvd.consensus_distance(model) <= 0.01 * first, algorithm


def _sequential(algorithm: str, steps: int) -> list[Weights]:
    models, shares = [initial(rank) for rank in range(hvd.size())], np.ones(hvd.size())
    for step in range(steps):
        updates = [sgd(RATE)(w, *batch(rank, step, steps)) for rank, w in enumerate(models)]
        mass = [plus([share * a for a in w], u) for share, w, u in zip(shares, models, updates, strict=True)]
        matrix = mixing_matrix(algorithm, step)
        shares = matrix @ shares
        models = [[a / share for a in total(mass, row)] for row, share in zip(matrix, shares, strict=True)]
    return models
