"""What one `model.fit` gives: the weights of each algorithm's mathematics, computed by NumPy for all ranks."""

from __future__ import annotations

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import numpy as np

from tests.tensorflow_frontend.keras.models import (
    GOSSIP,
    SYNCHRONOUS,
    Weights,
    batch,
    close,
    everybodys,
    fit,
    gradient,
    initial,
    make_model,
    mean,
    mixing_matrix,
    plus,
    sgd,
    total,
)

RATE = 0.25


def check_allreduce_gives_equal_weights_from_different_data() -> None:
    model = fit(make_model(initial(0)), hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE)))
    gradients = mean([gradient(initial(0), *batch(rank, 0, 1)) for rank in range(hvd.size())])
    close(model.get_weights(), plus(initial(0), gradients, -RATE))
    for weights in everybodys(model.get_weights()):
        close(weights, model.get_weights(), tolerance=0.0)


def check_synchronous_gossip_in_the_papers_order() -> None:
    """x(k+1) = sum_j W_ij (x_j(k) + u_j(x_j(k))); push-sum: z = x / w."""
    for algorithm in SYNCHRONOUS:
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
    for algorithm in SYNCHRONOUS:
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
        first = hvd.consensus_distance(fit(model, optimizer))
        expected = mean([initial(rank) for rank in range(hvd.size())])
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
