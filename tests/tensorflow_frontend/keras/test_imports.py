"""What importing the Keras front end gives, under its three names, and which Keras it wants."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.tensorflow_frontend.ranks import needs_tensorflow

pytestmark = [needs_tensorflow, pytest.mark.timeout(120)]

NAMES = """
import hvd_gossip.keras as short
import hvd_gossip.tensorflow.keras as ours
import hvd_gossip.keras.callbacks, hvd_gossip.keras.elastic
from hvd_gossip.compat import install
install()
import horovod.keras, horovod.tensorflow.keras, horovod.keras.callbacks, horovod.tensorflow.keras.elastic
from horovod.tensorflow.keras.callbacks import MetricAverageCallback

assert short is ours is horovod.keras is horovod.tensorflow.keras
assert hvd_gossip.keras.callbacks is ours.callbacks is horovod.keras.callbacks
assert hvd_gossip.keras.elastic is ours.elastic is horovod.tensorflow.keras.elastic
assert MetricAverageCallback is ours.callbacks.MetricAverageCallback
"""
"""In a process of its own: modules are imported once."""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_all_names_are_one_module() -> None:
    done = run(NAMES)
    assert done.returncode == 0, done.stderr


def test_another_keras_is_refused() -> None:
    from hvd_gossip.tensorflow.keras.backend import check

    check("3.6.0", "tensorflow")
    with pytest.raises(ImportError, match=r"needs Keras 3, not 2\.15\.0"):
        check("2.15.0", "tensorflow")
    with pytest.raises(ImportError, match="set KERAS_BACKEND=tensorflow"):
        check("3.6.0", "jax")


def test_legacy_keras_says_what_to_do() -> None:
    code = """
import hvd_gossip.tensorflow as hvd
import hvd_gossip.tensorflow.keras as hvd_keras
hvd.init()
for distribute in (hvd.DistributedOptimizer, hvd_keras.DistributedOptimizer):
    for module in ("tf_keras.src.optimizers.adam", "tf_keras.src.optimizers.legacy.adam"):
        try:
            distribute(type("Adam", (), {"__module__": module})())
        except ValueError as error:
            print(error)
hvd.shutdown()
"""
    done = run(code, TF_USE_LEGACY_KERAS="1", HVD_GOSSIP_REPORT="0")
    assert done.stdout.count("unset TF_USE_LEGACY_KERAS and use Keras 3") == 4, done.stdout + done.stderr
    assert "UserWarning: TF_USE_LEGACY_KERAS is set" in done.stderr


@pytest.mark.slow
def test_a_loop_of_legacy_keras_trains() -> None:
    """What the message says to do, with the real tf_keras where it is installed."""
    pytest.importorskip("tf_keras")
    code = """
import numpy as np
import tensorflow as tf
import hvd_gossip.tensorflow as hvd
hvd.init(algorithm="dpsgd")
model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])
optimizer = tf.keras.optimizers.SGD(0.05)
state = hvd.elastic.TensorFlowKerasState(model, optimizer)
state.sync()
losses = []
for _ in range(30):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(np.eye(3)) - 1.0))
    tape = hvd.DistributedGradientTape(tape)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    losses.append(float(loss))
state.restore()
with hvd.consensus(model):
    print(type(model).__module__.partition(".")[0], losses[-1] < losses[0])
hvd.shutdown()
"""
    done = run(code, TF_USE_LEGACY_KERAS="1", HVD_GOSSIP_REPORT="0")
    assert done.stdout == "tf_keras True\n", done.stdout + done.stderr
