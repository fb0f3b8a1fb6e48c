"""Horovod's options of the Keras optimizer, and how they are saved."""

from __future__ import annotations

import warnings
from typing import Any

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import pytest
import tensorflow as tf
from hvd_gossip.tensorflow.compression import NoneCompressor
from hvd_gossip.tensorflow.keras.options import Options, options_of

from tests.tensorflow_frontend.keras.models import (
    batch,
    close,
    everybodys,
    fit,
    gradient,
    initial,
    make_model,
    mean,
    plus,
    total,
)

RATE = 0.25


def trained(model: Any = None, **options: Any) -> Any:
    optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), **options)
    return fit(model or make_model(initial(0)), optimizer).get_weights()


def gradients(ranks: Any = None) -> list[Any]:
    return [gradient(initial(0), *batch(rank, 0, 1)) for rank in ranks or range(hvd.size())]


def check_options_that_tune_change_nothing() -> None:
    expected = plus(initial(0), mean(gradients()), -RATE)
    for options in (
        {"gradient_predivide_factor": 2.0},
        {"groups": 2},
        {"sparse_as_dense": True, "device_dense": "/cpu:0", "device_sparse": "/cpu:0"},
    ):
        close(trained(**options), expected)
    close(trained(compression=hvd.Compression.fp16), expected, tolerance=1e-3)
    model = make_model(initial(0))
    close(trained(model, groups=[list(model.trainable_variables)]), expected)
    with pytest.warns(DeprecationWarning, match="num_groups"):
        close(trained(num_groups=1), expected)


def check_other_reductions() -> None:
    ones = [1.0] * hvd.size()
    close(trained(op=hvd.Sum), plus(initial(0), total(gradients(), ones), -RATE), tolerance=1e-5)


def check_ranks_outside_of_the_process_set_step_by_themselves() -> None:
    if hvd.size() == 1:
        with pytest.raises(ValueError, match="duplicate process set"):
            hvd.add_process_set([0])
        return
    members = list(range(hvd.size() - 1))
    process_set = hvd.add_process_set(members)
    ranks = members if hvd.rank() in members else [hvd.rank()]
    expected = plus(initial(0), mean(gradients(ranks)), -RATE)
    together = {"topology": "complete", "mixing_weights": "uniform", "mixing_order": "sequential"}
    for options in ({}, {"algorithm": "dpsgd", **together}):
        close(trained(process_set=process_set, **options), expected, tolerance=1e-5)
    saved = Options(process_set=process_set).config()
    assert saved["process_set"] == members
    assert options_of(saved).process_set is process_set
    hvd.remove_process_set(process_set)
    with pytest.raises(ValueError, match="not registered now"):
        options_of({**saved, "process_set": [*members, 99]})


def check_gossip_says_once_what_does_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            hvd_keras.DistributedOptimizer(keras.optimizers.SGD(), algorithm="dpsgd", groups=2, sparse_as_dense=True)
    said = [str(one.message) for one in caught if "do nothing with algorithm" in str(one.message)]
    assert len(said) == 1
    assert said[0].startswith("groups, sparse_as_dense of DistributedOptimizer")


def check_options_are_saved_and_read() -> None:
    options = Options(
        compression=hvd.Compression.fp16,
        sparse_as_dense=True,
        op=hvd.Sum,
        backward_passes_per_step=3,
        average_aggregated_gradients=True,
        groups=2,
        scale_local_gradients=False,
        settings={"algorithm": "sgp", "mixing_period": 2},
    )
    assert options_of(options.config()) == options
    variable = keras.Variable([1.0])
    assert Options(groups=[[variable]]).config()["groups"] is None

    class Own(NoneCompressor):
        pass

    with pytest.raises(ValueError, match="cannot be saved with Own"):
        Options(compression=Own).config()
    with pytest.raises(ValueError, match="once in groups"):
        Options(groups=[[variable], [variable]])


def check_horovod_1437_an_optimizer_is_made_from_its_configuration() -> None:
    """horovod#1437: from_config(get_config()) was a TypeError: an unexpected keyword argument 'learning_rate'."""
    optimizer = hvd_keras.DistributedOptimizer(keras.optimizers.Adam(0.125), compression=hvd.Compression.fp16)
    for make in (optimizer.from_config, type(optimizer).from_config):
        again = make(optimizer.get_config())
        assert type(again) is type(optimizer)
        assert again._hvd_options == optimizer._hvd_options
        assert float(again.learning_rate) == 0.125
        assert again.name == optimizer.name


def check_equal_weights_stay_equal_with_default_settings() -> None:
    weights = fit(make_model(initial(0)), hvd.DistributedOptimizer(keras.optimizers.Adam(0.1)), 3).get_weights()
    for other in everybodys(weights):
        close(other, weights, tolerance=0.0)


def check_the_function_for_all_optimizers_takes_the_same_settings() -> None:
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(RATE), algorithm="sgp", mixing_period=2)
    assert optimizer._hvd_options.settings == {"algorithm": "sgp", "mixing_period": 2}
    with pytest.raises(ValueError, match=r"topology: optimizers of tf\.compat\.v1 follow the settings of hvd\.init"):
        hvd.DistributedOptimizer(tf.compat.v1.train.GradientDescentOptimizer(RATE), topology="ring")
