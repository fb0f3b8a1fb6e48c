"""The wrapper that a distributed optimizer is: saved and loaded, what it shows and what it refuses."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import pytest
from hvd_gossip.tensorflow.keras.optimizer import DistributedKerasOptimizer

from tests.tensorflow_frontend.keras.models import ROWS, batch, close, data, everybodys, fit, initial, make_model, save

RATE = 0.25


def check_a_saved_model_comes_back_distributed() -> None:
    """horovod#3725: variables of Keras's new optimizers could be neither saved nor loaded."""
    for settings in ({}, {"algorithm": "dpsgd", "mixing_period": 2}):
        optimizer = hvd_keras.DistributedOptimizer(
            keras.optimizers.SGD(RATE, momentum=0.9), compression=hvd.Compression.none, **settings
        )
        model = fit(make_model(initial(0)), optimizer, 2)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.keras")
            save(model, path)
            for load in (keras.saving.load_model, hvd_keras.load_model):
                loaded = load(path)
                assert isinstance(loaded.optimizer, DistributedKerasOptimizer)
                assert loaded.optimizer._hvd_options == optimizer._hvd_options
                close([v.numpy() for v in loaded.optimizer.variables], [v.numpy() for v in optimizer.variables])
                close(loaded.get_weights(), model.get_weights(), tolerance=0.0)
                loaded.fit(*data(hvd.rank(), 2), batch_size=ROWS, verbose=0)


def check_a_plain_saved_model_is_wrapped_or_refused() -> None:
    model = make_model(initial(0))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    model.train_on_batch(*batch(0, 0, 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        save(model, path)
        loaded = hvd_keras.load_model(path, compression=hvd.Compression.fp16)
        assert isinstance(loaded.optimizer, DistributedKerasOptimizer)
        close([v.numpy() for v in loaded.optimizer.variables], [v.numpy() for v in model.optimizer.variables])
        loaded.fit(*batch(hvd.rank(), 0, 1), batch_size=ROWS, verbose=0)
        for weights in everybodys(loaded.get_weights()):
            close(weights, loaded.get_weights(), tolerance=0.0)
        save(make_model(), path)
        with pytest.raises(ValueError, match="without an optimizer"):
            hvd_keras.load_model(path)


def check_misuse_is_refused() -> None:
    plain = keras.optimizers.SGD(RATE)
    for arguments, message in (
        ({"op": hvd.Adasum}, "Adasum"),
        ({"op": hvd.Sum, "algorithm": "dpsgd"}, "no op but Average"),
        ({"algorithm": "nonesuch"}, "nonesuch"),
        ({"backward_passes_per_step": 0}, "positive"),
        ({"gradient_predivide_factor": 2.0, "op": hvd.Sum}, "predivide"),
        ({"process_set": hvd.ProcessSet([0])}, "registered"),
    ):
        with pytest.raises(ValueError, match=message):
            hvd_keras.DistributedOptimizer(plain, **arguments)
    with pytest.raises(ValueError, match="distributed already"):
        hvd_keras.DistributedOptimizer(hvd_keras.DistributedOptimizer(plain))
    with pytest.raises(ValueError, match="Keras 3 is needed"):
        hvd_keras.DistributedOptimizer("sgd")
    legacy = type("SGD", (), {"__module__": "tf_keras.src.optimizers.sgd"})()
    with pytest.raises(ValueError, match="TF_USE_LEGACY_KERAS"):
        hvd_keras.DistributedOptimizer(legacy)
    with pytest.raises(NotImplementedError, match="stateless_apply"):
        hvd_keras.DistributedOptimizer(plain).stateless_apply([], [], [])


def check_the_wrapper_shows_the_wrapped_optimizer() -> None:
    """horovod#3822: `hvd.tensorflow.DistributedOptimizer` knew Keras's legacy optimizers only."""
    plain = keras.optimizers.SGD(RATE, momentum=0.5)
    optimizer = hvd_keras.DistributedOptimizer(plain)
    assert optimizer.name == "DistributedSGD"
    assert optimizer.momentum == 0.5
    optimizer.learning_rate = 0.125
    assert float(plain.learning_rate) == 0.125
    assert hvd.DistributedOptimizer(keras.optimizers.SGD(), name="own").name == "own"
    with pytest.raises(AttributeError):
        optimizer.nonesuch  # noqa: B018
