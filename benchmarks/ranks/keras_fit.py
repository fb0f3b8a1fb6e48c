"""`model.fit` of Keras with the bare optimizer and with each algorithm, in blocks that alternate; compute is slept."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from typing import Any

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}

import hvd_gossip.tensorflow.keras as hvd
import keras
import numpy as np
import tensorflow as tf

from benchmarks.job import Meeting, serve
from benchmarks.options import KerasFitOptions
from hvd_gossip import runtime

FEATURES, OUTPUTS, RATE = 64, 10, 1e-3
Record = dict[str, Any]
Fit = Callable[[], None]


class SleptCompute(keras.layers.Layer):  # type: ignore[misc]
    """The first layer of a model: passes its inputs on after the time that forward and backward are to take together.

    Args:
        seconds: how long it sleeps a batch. No kernel of TensorFlow waits asleep: a core is free meanwhile, as beside a GPU.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(trainable=False)
        self._seconds = seconds

    def call(self, inputs: Any) -> Any:
        slept = tf.numpy_function(self._sleep, [inputs], inputs.dtype)
        slept.set_shape(inputs.shape)
        return slept

    def _sleep(self, inputs: Any) -> Any:
        time.sleep(self._seconds)
        return inputs


def measure(options: KerasFitOptions, meeting: Meeting) -> list[Record]:
    """A record a size and algorithm."""
    hvd.init()
    try:
        return [
            _measure(options, meeting, megabytes, step_ms, algorithm)
            for megabytes, step_ms in zip(options.megabytes, options.step_ms, strict=True)
            for algorithm in options.algorithms
        ]
    finally:
        hvd.shutdown()


def _measure(options: KerasFitOptions, meeting: Meeting, megabytes: float, step_ms: float, algorithm: str) -> Record:
    steps = options.steps(step_ms)
    bare, distributed = (
        make_fit(make_model(megabytes, step_ms * 1e-3), steps, options.batch, which) for which in (None, algorithm)
    )
    record: Record = {"megabytes": megabytes, "algorithm": algorithm}
    record |= {"bare_seconds": [], "step_seconds": [], "waited_share": []}
    engine = runtime.current().engine
    for repetition in range(options.repetitions + 1):
        for name, fit in (("bare_seconds", bare), ("step_seconds", distributed)):
            meeting.all_here("block", options.ranks)
            start, waited = time.monotonic(), engine.waited
            fit()
            length = time.monotonic() - start
            if repetition:
                record[name].append(length / steps)
                if fit is distributed:
                    record["waited_share"].append((engine.waited - waited) / length)
    del bare, distributed, fit
    gc.collect()  # so that the distributed one departs now, and disturbs nobody later
    meeting.all_here("algorithm", options.ranks)
    return record


def make_fit(model: Any, steps: int, batch: int, algorithm: str | None) -> Fit:
    """A function that makes so many steps of `fit`.

    Args:
        batch: samples of a step.
        algorithm: None: the bare optimizer.
    """
    optimizer = keras.optimizers.SGD(RATE)
    if algorithm is not None:
        hvd.broadcast_variables(model.variables, root_rank=0)
        optimizer = hvd.DistributedOptimizer(optimizer, algorithm=algorithm)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
    generator = np.random.default_rng(hvd.rank())
    inputs, targets = (generator.normal(size=(steps * batch, wide)).astype(np.float32) for wide in (FEATURES, OUTPUTS))

    def fit() -> None:
        model.fit(inputs, targets, batch_size=batch, shuffle=False, verbose=0)

    return fit


def make_model(megabytes: float, seconds: float) -> Any:
    """A perceptron of about so many 10^6 bytes of float32 parameters, (n, 64) -> (n, 10), behind slept compute."""
    beside = FEATURES + OUTPUTS + 2
    hidden = max(1, round((beside**2 / 4 + megabytes * 1e6 / 4) ** 0.5 - beside / 2))
    layers = keras.layers
    stack = [layers.Dense(hidden, "relu"), layers.Dense(hidden, "relu"), layers.Dense(OUTPUTS)]
    return keras.Sequential([layers.Input((FEATURES,)), SleptCompute(seconds), *stack])


if __name__ == "__main__":
    serve(KerasFitOptions, measure)
