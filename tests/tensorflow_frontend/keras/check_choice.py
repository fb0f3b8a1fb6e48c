"""`--algorithm auto` with Keras: gradients are averaged, then a choice is made, and the same model goes on by gossip."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
import keras
import numpy as np
import pytest

from hvd_gossip import runtime
from hvd_gossip.errors import ConfigError
from tests.tensorflow_frontend.automatic import AVERAGED, automatic, chosen, in_force
from tests.tensorflow_frontend.keras.models import (
    ROWS,
    Weights,
    batch,
    close,
    data,
    everybodys,
    fit,
    gradient,
    initial,
    make_model,
    mean,
    plus,
    save,
)

RATE = 0.25
STEPS = AVERAGED + 1
"""The last one is made by gossip, from equal weights: the workers' mean is still what averaging gives."""


def distributed(**options: Any) -> Any:
    return hvd_keras.DistributedOptimizer(keras.optimizers.SGD(RATE), **options)


def averaged(steps: int, passes: int = 1) -> Weights:
    """The weights after steps with everybody's gradients of so many batches each."""
    weights = initial(0)
    for step in range(steps):
        batches = [
            batch(rank, step * passes + one, steps * passes) for one in range(passes) for rank in range(hvd.size())
        ]
        weights = plus(weights, mean([gradient(weights, *one) for one in batches]), -RATE)
    return weights


def go_on(model: Any, steps: int = 2) -> None:
    model.fit(*data(hvd.rank(), steps), batch_size=ROWS, verbose=0)


def assert_decided(model: Any, passes: int = 1) -> None:
    """That STEPS steps were made, the last one under what was chosen; and that it goes on."""
    assert in_force() == chosen()
    with hvd.consensus(model):
        close(model.get_weights(), averaged(STEPS, passes), tolerance=1e-5)
    go_on(model)
    assert np.isfinite(hvd.consensus_distance(model))


class Watching(keras.callbacks.Callback):  # type: ignore[misc]
    """What is in force, and how far apart the workers are, after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.algorithms: list[str] = []
        self.distances: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.algorithms.append(in_force())
        self.distances.append(hvd.consensus_distance(self.model))


def check_a_compiled_model_changes_over_between_two_steps() -> None:
    with tempfile.TemporaryDirectory() as folder, automatic(metrics_dir=folder):
        model, watching = make_model(initial(0)), Watching()
        model.compile(optimizer=distributed(), loss="mse")
        inputs, targets = data(hvd.rank(), STEPS)
        model.fit(inputs, targets, batch_size=ROWS, verbose=0, shuffle=False, callbacks=[watching])
        assert watching.algorithms == ["allreduce"] * AVERAGED + [chosen()]
        assert max(watching.distances[:AVERAGED]) == 0.0
        assert_decided(model)
        rank, size = hvd.rank(), hvd.size()
        hvd.shutdown()  # writes what is left of the metrics
        lines = (Path(folder) / f"rank-{rank}.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    if size > 1:
        assert kinds.count("choice") == 1
        assert kinds.count("step") == STEPS + 2 - 1


def check_every_way_of_making_steps_changes_over() -> None:
    for options in ({"steps_per_execution": 3}, {"run_eagerly": True}):
        with automatic():
            assert_decided(fit(make_model(initial(0)), distributed(), STEPS, **options))
    with automatic():
        model = make_model(initial(0))
        model.compile(optimizer=distributed(), loss="mse")
        for step in range(STEPS):
            assert in_force() == "allreduce"
            model.train_on_batch(*batch(hvd.rank(), step, STEPS))
        assert_decided(model)
    with automatic():
        options = {"backward_passes_per_step": 2, "average_aggregated_gradients": True}
        assert_decided(fit(make_model(initial(0)), distributed(**options), 2 * STEPS), passes=2)


def check_scaled_losses_change_over() -> None:
    """A step that overflows on one rank is skipped by all while gradients are averaged, and by that one alone afterwards."""
    with automatic():
        optimizer = keras.optimizers.LossScaleOptimizer(distributed(), initial_scale=8.0)
        model = make_model(initial(0))
        model.compile(optimizer=optimizer, loss="mse")
        inputs, targets = batch(hvd.rank(), 0, 1)
        bad = np.full_like(inputs, np.inf) if hvd.rank() == hvd.size() - 1 else inputs
        model.train_on_batch(bad, targets)
        assert set(hvd.allgather_object(int(optimizer.iterations))) == {0}
        for step in range(STEPS):
            model.train_on_batch(*batch(hvd.rank(), step, STEPS))
        assert_decided(model)
        made = int(optimizer.iterations)
        model.train_on_batch(bad, targets)
        assert hvd.allgather_object(int(optimizer.iterations) - made) == [1] * (hvd.size() - 1) + [0]


def check_a_saved_model_follows_the_choice() -> None:
    with tempfile.TemporaryDirectory() as folder, automatic():
        model = fit(make_model(initial(0)), distributed(), 2)
        assert model.optimizer.get_config()["options"]["settings"] == {}
        save(model, Path(folder) / "model.keras")
        again = hvd_keras.load_model(Path(folder) / "model.keras")
        close(again.get_weights(), model.get_weights(), tolerance=0.0)
        go_on(again, STEPS)
        assert in_force() == chosen()
        save(again, Path(folder) / "chosen.keras")
        last = hvd_keras.load_model(Path(folder) / "chosen.keras")
        go_on(last)
        assert np.isfinite(hvd.consensus_distance(last))


def check_what_auto_does_not_decide_for() -> None:
    with automatic(inject=""):
        sums = fit(make_model(initial(0)), distributed(op=hvd.Sum), STEPS)
        named = fit(make_model(initial(0)), distributed(algorithm="dpsgd"), STEPS)
        assert runtime.current().chooser is not None
        decided = fit(make_model(initial(0)), distributed(), STEPS)
        assert runtime.current().chooser is None
        for model in (sums, named, decided):
            go_on(model)
            assert np.isfinite(hvd.consensus_distance(model))
        for weights in everybodys(sums.get_weights()):
            close(weights, sums.get_weights(), tolerance=0.0)
        with pytest.raises(ConfigError, match="for a whole run"):
            distributed(algorithm="auto")


def check_a_new_runtime_decides_anew() -> None:
    with automatic():
        model = fit(make_model(initial(0)), distributed(), STEPS)
        assert in_force() == chosen()
        hvd.shutdown()
        hvd.init(algorithm="auto")
        if chosen() == "adpsgd":
            with pytest.raises(Exception, match="trace it anew"):
                go_on(model)
        hvd.broadcast_variables(model.weights, root_rank=0)
        model.compile(optimizer=model.optimizer, loss="mse")
        go_on(model)
        assert in_force() == "allreduce"
        assert runtime.current().chooser is not None
        for weights in everybodys(model.get_weights()):
            close(weights, model.get_weights(), tolerance=0.0)
