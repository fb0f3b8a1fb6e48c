"""Horovod's callbacks under `model.fit` of Keras 3."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import numpy as np
import pytest

from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.errors import HorovodInternalError
from tests.tensorflow_frontend.keras.models import (
    GOSSIP,
    ROWS,
    SYNCHRONOUS,
    close,
    data,
    everybodys,
    initial,
    make_model,
    save,
)

callbacks, elastic = hvd_keras.callbacks, hvd_keras.elastic


class Rates(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes the learning rate, and the momentum's velocity, of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))


def run(model: Any, *chosen: Any, epochs: int = 1, steps: int = 2, **options: Any) -> Any:
    return model.fit(
        *data(hvd.rank(), steps),
        batch_size=ROWS,
        epochs=epochs,
        verbose=0,
        callbacks=[*chosen],
        shuffle=False,
        **options,
    )


def compiled(optimizer: Any = None, weights: Any = None, **settings: Any) -> Any:
    model = make_model(weights)
    plain = optimizer or keras.optimizers.SGD(0.0, momentum=0.9)
    model.compile(optimizer=hvd_keras.DistributedOptimizer(plain, **settings), loss="mse", metrics=["mae"])
    return model


def rates_of(callback: Any, epochs: int = 2, steps: int = 2, **options: Any) -> list[float]:
    rates = Rates()
    run(compiled(), callback, rates, epochs=epochs, steps=steps, **options)
    return rates.rates


def mixes_after_the_first_step(algorithm: str) -> bool:
    """Whether the root has met nobody when it is broadcast, at the end of the first batch."""
    return algorithm in SYNCHRONOUS and ALGORITHMS[algorithm].orders[0] == "overlap"


def check_broadcast_gives_everybody_the_roots_variables() -> None:
    """horovod#4290: with Keras 3, 'Variable' object has no attribute 'ref'."""
    root = hvd.size() - 1
    for settings in ({}, *({"algorithm": name} for name in GOSSIP)):
        model = compiled(**settings)
        model.optimizer.learning_rate = 0.0 if hvd.rank() == root else 0.5
        callback = callbacks.BroadcastGlobalVariablesCallback(root)
        run(model, callback, steps=1)
        assert float(model.optimizer.learning_rate) == 0.0
        roots = everybodys(model.get_weights())[root]
        close(model.get_weights(), roots)
        if not settings or mixes_after_the_first_step(settings["algorithm"]):
            close(model.get_weights(), initial(root), tolerance=0.0 if not settings else 1e-6)
        model.set_weights(initial(hvd.rank()))
        run(model, callback, steps=1)  # once only
        if not settings:
            close(model.get_weights(), initial(hvd.rank()), tolerance=0.0)


def check_one_rank_loads_what_the_others_build() -> None:
    """Horovod's pattern to go on from a checkpoint. Keras's variables are called otherwise in a model that was loaded."""
    for settings in ({}, {"algorithm": "dpsgd"}):
        model, again = (compiled(keras.optimizers.SGD(0.01, momentum=0.9), **settings) for _ in range(2))
        run(model)
        if hvd.rank() == 0:
            with tempfile.TemporaryDirectory() as folder:
                save(model, Path(folder) / "model.keras")
                again = hvd_keras.load_model(Path(folder) / "model.keras")
        model = again
        run(model, callbacks.BroadcastGlobalVariablesCallback(0), steps=3)
        with hvd.consensus(model):
            for weights in everybodys(model.get_weights()):
                close(weights, model.get_weights(), tolerance=1e-6)


def check_local_variables_are_not_broadcast() -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2), layers.Dense(3)])
    for weight in model.weights:
        weight.assign(np.full(weight.shape, float(hvd.rank() + 1)))
    model.compile(optimizer=hvd_keras.DistributedOptimizer(keras.optimizers.SGD(0.0)), loss="mse")
    own, bias = model.layers[0].kernel, model.layers[0].bias.value
    callback = callbacks.BroadcastGlobalVariablesCallback(0, local_variables=[own])
    callback.register_local_var(bias)  # a tf.Variable, as Horovod's users have them
    run(model, callback, steps=1)
    assert [float(np.max(weight)) for weight in model.get_weights()] == [hvd.rank() + 1, hvd.rank() + 1, 1, 1]
    assert callbacks.BroadcastGlobalVariablesCallback(0, local_variables=own).local_variables == [own]
    with pytest.raises(ValueError, match="All local variables must be"):
        callbacks.BroadcastGlobalVariablesCallback(0, local_variables=[3])


def check_the_best_model_is_kept() -> None:
    for weights_only, name in ((False, "best.keras"), (True, "best.weights.h5")):
        model = compiled(keras.optimizers.SGD(0.1), initial(0))
        best = callbacks.BestModelCheckpoint(monitor="loss", mode="max", save_weights_only=weights_only)
        with pytest.raises(ValueError, match="BestModelCheckpoint has no `filepath`"):
            run(model, best)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Keras's own, of NumPy 2
            best.filepath = str(Path(folder, name))
            run(model, best, epochs=3)
            kept = make_model()
            kept.load_weights(best.filepath)
            first = compiled(keras.optimizers.SGD(0.1), initial(0))
            run(first)  # the loss falls from the first epoch on, which was the one with the largest
            close(kept.get_weights(), first.get_weights())


def check_metrics_are_averaged() -> None:
    model = compiled()
    own = run(model).history
    history = run(model, callbacks.MetricAverageCallback()).history
    every = hvd.allgather_object(own)
    for name in ("loss", "mae"):
        np.testing.assert_allclose(history[name], np.mean([one[name] for one in every], axis=0), rtol=1e-6)


def check_a_schedule_by_epochs() -> None:
    schedule = callbacks.LearningRateScheduleCallback
    halved = schedule(0.5, lambda epoch: 1 / (1 + epoch))
    assert rates_of(halved) == pytest.approx([0.5, 0.5, 0.25, 0.25])
    assert rates_of(schedule(0.5, 0.1, start_epoch=1, end_epoch=2), epochs=3) == pytest.approx(
        [0, 0, 0.05, 0.05, 0.05, 0.05]
    )
    smooth = schedule(0.5, lambda epoch: epoch, staircase=False)
    assert rates_of(smooth) == pytest.approx([0.0, 0.25, 0.5, 0.75])
    history = run(compiled(), schedule(0.5, 0.5)).history
    assert history["lr"] == pytest.approx([0.25])


def check_the_warm_up_ends_at_the_full_rate() -> None:
    size, said = hvd.size(), io.StringIO()
    with contextlib.redirect_stdout(said):
        rates = rates_of(callbacks.LearningRateWarmupCallback(0.5, warmup_epochs=2, verbose=1), epochs=3)
    expected = [0.5 / size * (1 + (size - 1) * batch / 4) for batch in (1, 2, 3, 4)]
    assert rates == pytest.approx([*expected, 0.5, 0.5], rel=1e-6)
    assert "Epoch 2: finished gradual learning rate warmup to 0.5." in said.getvalue()


def check_the_rate_of_momentum_changes_before_the_first_step() -> None:
    """The first batch is warmed up when the optimizer has no velocities yet."""
    rates = Rates()
    model = compiled(keras.optimizers.SGD(0.5, momentum=0.9), initial(0))
    run(model, callbacks.LearningRateWarmupCallback(0.25, warmup_epochs=1), rates, steps=2)
    size = hvd.size()
    assert rates.rates == pytest.approx([0.25 / size * (1 + (size - 1) / 2), 0.25], rel=1e-6)


def check_steps_that_are_not_known_are_asked_for() -> None:
    warmup = callbacks.LearningRateWarmupCallback(0.5)
    warmup.set_params({"steps": None})
    with pytest.raises(ValueError, match="steps_per_epoch parameter to the LearningRateWarmupCallback"):
        warmup.on_train_begin()
    with pytest.raises(ValueError, match="initial_lr"):
        callbacks.LearningRateScheduleCallback(None, 1.0)


def check_momentum_is_corrected_when_the_rate_changes() -> None:
    """v <- m v - lr g: with lr -> f lr the velocity v counts f times, once (Goyal et al., remark 2)."""
    for correct in (True, False):
        velocities = []
        for factor in (1.0, 0.5):
            model = compiled(keras.optimizers.SGD(0.25, momentum=0.5), initial(0))
            multipliers = {0: 1.0, 1: factor}
            schedule = callbacks.LearningRateScheduleCallback(0.25, multipliers.get, momentum_correction=correct)
            run(model, schedule, epochs=1, steps=1)
            schedule.on_epoch_begin(1)
            velocities.append(model.optimizer.momentums[0].numpy())
        ratio = velocities[1] / velocities[0]
        np.testing.assert_allclose(ratio, 0.5 if correct else 1.0, rtol=1e-6)


def check_consensus_is_logged() -> None:
    for settings in ({}, {"algorithm": "adpsgd"}):
        history = run(compiled(**settings), callbacks.ConsensusCallback(), epochs=2).history
        every = hvd.allgather_object(history["consensus_distance"])
        assert all(one == every[0] for one in every)
        assert all(0 <= part < 1 for part in history["waited"])
        assert all(np.isfinite(every[0]))
        if hvd.size() == 1 or not settings:  # two workers that have just averaged everything may be alike
            assert (max(every[0]) > 0) == (hvd.size() > 1)


def check_elastic_callbacks() -> None:
    commits: list[tuple[int, int]] = []

    class Noted(elastic.KerasState):
        def commit(self) -> None:
            commits.append((self.epoch, self.batch))
            super().commit()

    model = compiled(keras.optimizers.SGD(0.1), initial(0))
    run(model, steps=1)
    state = Noted(model, epoch=3, batch=0)
    chosen = (
        elastic.UpdateEpochStateCallback(state),
        elastic.UpdateBatchStateCallback(state),
        elastic.CommitStateCallback(state, batches_per_commit=2),
    )
    run(model, *chosen, epochs=2, steps=3)
    assert commits == [(3, 1), (4, 0), (4, 1), (5, 0)]
    trained = model.get_weights()
    model.set_weights(initial(1))
    state.restore()
    close(model.get_weights(), trained, tolerance=0.0)
    model.set_weights(initial(hvd.rank()))
    state.sync()
    for weights in everybodys(model.get_weights()):
        close(weights, initial(0), tolerance=0.0)


class FailOnce(keras.callbacks.Callback):  # type: ignore[misc]
    """What a failed collective looks like, in the second epoch."""

    failed = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.model.optimizer.iterations == 3 and not self.failed:
            FailOnce.failed = True
            hvd.barrier()  # under adpsgd one that is late would hear of the others' failure first, and fail twice
            raise HorovodInternalError("for the test")


def check_elastic_training_goes_on_from_the_last_commit() -> None:
    for settings in ({}, {"algorithm": "dpsgd"}, {"algorithm": "adpsgd"}):
        FailOnce.failed = False
        model = compiled(keras.optimizers.SGD(0.1), initial(0), **settings)
        state = elastic.KerasState(model, epoch=0)
        attempts = []

        @elastic.run  # type: ignore[untyped-decorator]
        def train(state: Any, model: Any = model, attempts: Any = attempts) -> None:
            attempts.append(state.epoch)
            chosen = (elastic.UpdateEpochStateCallback(state), elastic.CommitStateCallback(state, 100), FailOnce())
            run(model, *chosen, epochs=3 - state.epoch)

        train(state)
        assert attempts == [0, 1], settings
        assert state.epoch == 3
        assert int(model.optimizer.iterations) == 6
        if not settings:
            for weights in everybodys(model.get_weights()):
                close(weights, model.get_weights(), tolerance=0.0)
        with hvd.consensus(model):
            assert np.isfinite(model.get_weights()[0]).all()


def check_values_are_reduced_gathered_and_sent() -> None:
    rank, size = hvd.rank(), hvd.size()
    assert float(hvd_keras.allreduce(float(rank))) == (size - 1) / 2
    assert int(hvd_keras.allreduce(2, op=hvd.Sum)) == 2 * size
    assert hvd_keras.allgather([rank]).numpy().tolist() == list(range(size))
    assert hvd_keras.broadcast([rank], root_rank=size - 1).numpy().tolist() == [size - 1]
    assert hvd_keras.reducescatter(np.ones(size), op=hvd.Sum).numpy().tolist() == [size]
    with pytest.raises(RuntimeError, match="eager"):
        hvd_keras.broadcast_global_variables(0)
