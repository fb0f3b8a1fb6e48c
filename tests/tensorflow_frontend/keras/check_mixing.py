"""What mixes variables, over the life of models and runtimes: other optimizers, restarts, checkpoints, means."""

from __future__ import annotations

from typing import Any

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import numpy as np
import pytest
from hvd_gossip.tensorflow.mixing import ParameterMixing, mixing_strategies

from hvd_gossip import basics
from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.limits import mean_moves
from tests.tensorflow_frontend.keras.models import (
    GOSSIP,
    ROWS,
    batch,
    close,
    data,
    everybodys,
    fit,
    initial,
    limit_of,
    make_model,
    mean,
)


def optimizer(rate: float = 0.0, **settings: Any) -> Any:
    return hvd_keras.DistributedOptimizer(keras.optimizers.SGD(rate), **settings)


def go_on(model: Any, steps: int = 2) -> None:
    model.fit(*data(hvd.rank(), steps), batch_size=ROWS, verbose=0)


def check_an_optimizer_brings_in_what_the_one_before_it_exchanged_last() -> None:
    """After one step the first exchange is under way; without updates two ranks have the mean once it is brought in."""
    if hvd.size() == 2:
        model = fit(make_model(), optimizer(algorithm="dpsgd"), 1)
        model.compile(optimizer=optimizer(algorithm="dpsgd"), loss="mse")
        go_on(model, 1)
        close(model.get_weights(), mean([initial(rank) for rank in range(hvd.size())]))


def check_an_optimizer_takes_over_what_another_one_mixed() -> None:
    for algorithm in GOSSIP:
        model = fit(make_model(), optimizer(algorithm=algorithm), 3)
        model.compile(optimizer=optimizer(algorithm=algorithm), loss="mse")
        go_on(model)
        holding = [one for one in mixing_strategies() if one.holds(model.weights[0])]
        assert len(holding) == 1
        with hvd.consensus(model):
            weights_begin_again = ALGORITHMS[algorithm].needs == "column-stochastic"
            if not weights_begin_again and not mean_moves(algorithm, hvd.size()):
                close(model.get_weights(), limit_of(algorithm))


def check_two_models_are_mixed_side_by_side() -> None:
    one, other = fit(make_model(), optimizer(algorithm="dpsgd")), fit(make_model(), optimizer(algorithm="adpsgd"))
    for _ in range(3):
        go_on(other)
        go_on(one)
    for model in (one, other):
        with hvd.consensus(model):
            close(model.get_weights(), mean([initial(rank) for rank in range(hvd.size())]))


def check_training_goes_on_after_a_restart() -> None:
    models = [fit(make_model(initial(0)), optimizer(0.1, **settings)) for settings in ({}, {"algorithm": "sgp"})]
    basics.restart()
    for model in models:
        go_on(model)
    for weights in everybodys(models[0].get_weights()):
        close(weights, models[0].get_weights(), tolerance=0.0)
    with hvd.consensus(models[1]):
        assert np.isfinite(models[1].get_weights()[0]).all()


def check_the_state_of_gossip_is_saved_and_loaded() -> None:
    first = optimizer(algorithm="sgp")
    model = fit(make_model(), first, 3)
    state = first.gossip_state_dict()
    second = optimizer(algorithm="sgp")
    second.load_gossip_state_dict(state)
    again = fit(make_model(model.get_weights()), second)
    assert second.gossip_state_dict().keys() == state.keys()
    assert np.isclose(np.mean([one["weights"] for one in hvd.allgather_object(second.gossip_state_dict())]), 1.0)
    del again
    assert optimizer().gossip_state_dict() == {}


def check_what_is_not_mixed_is_averaged_for_a_consensus() -> None:
    for settings in ({}, {"algorithm": "dpsgd"}):
        layers = keras.layers
        model = keras.Sequential([layers.Input((4,)), layers.BatchNormalization(momentum=0.5), layers.Dense(3)])
        fit(model, optimizer(**settings), 2)
        statistics = model.layers[0].get_weights()[2:]
        every = everybodys(statistics)
        with hvd.consensus(model):
            close(model.layers[0].get_weights()[2:], mean(every))
        close(model.layers[0].get_weights()[2:], statistics, tolerance=0.0)
        assert hvd.size() == 1 or np.abs(every[0][0] - every[1][0]).max() > 0


def check_misuse_is_refused() -> None:
    model = fit(make_model(), optimizer(algorithm="dpsgd"))
    with hvd.consensus(model):
        with pytest.raises(RuntimeError, match=r"consensus_distance\(\) inside consensus\(\)"):
            hvd.consensus_distance(model)
        own = model.get_weights()
    go_on(model)
    assert np.isfinite(own[0]).all()
    with pytest.raises(ValueError, match="cannot be averaged"):
        ParameterMixing([keras.Variable([1], dtype="int32", trainable=False)])
    with pytest.raises(RuntimeError, match="before the first step"):
        model.optimizer.register_local_var(model.weights[0])


def check_a_single_batch_by_hand_is_a_step_like_any_other() -> None:
    model = make_model(initial(0))
    model.compile(optimizer=optimizer(0.1, algorithm="dpsgd", mixing_order="sequential"), loss="mse")
    for step in range(2):
        model.train_on_batch(*batch(hvd.rank(), step, 2))
    same = fit(make_model(initial(0)), optimizer(0.1, algorithm="dpsgd", mixing_order="sequential"), 2)
    close(model.get_weights(), same.get_weights())


def check_variables_of_other_types() -> None:
    for policy in ("mixed_bfloat16", "bfloat16", "float64"):
        keras.mixed_precision.set_global_policy(policy)
        try:
            for settings in ({}, {"algorithm": "dpsgd", "mixing_order": "sequential"}):
                model = fit(make_model(), optimizer(0.125, **settings), 3)
                assert np.isfinite(np.asarray(model.get_weights()[0], np.float64)).all()
                assert {v.dtype for v in model.weights} == {"float32" if policy[0] == "m" else policy}
                hvd.broadcast_variables(model.weights, root_rank=0)
                with hvd.consensus(model):
                    mixed = [np.asarray(value, np.float64) for value in model.get_weights()]
                close(mixed, [np.asarray(value, np.float64) for value in model.get_weights()], tolerance=1e-6)
        finally:
            keras.mixed_precision.set_global_policy("float32")
