"""Importing this says which Keras is missing: Keras 3 on TensorFlow."""

from __future__ import annotations

import os
import warnings

import keras

LEGACY = (
    "TF_USE_LEGACY_KERAS is set: tf.keras is Keras 2 (tf_keras), whose models, optimizers and callbacks know nothing of these. "
    "Unset it and use Keras 3, or write a training loop with hvd.DistributedGradientTape of hvd_gossip.tensorflow"
)


def check(version: str, backend: str) -> None:
    """Raises ImportError unless this is Keras 3 on TensorFlow."""
    if not version.startswith("3."):
        raise ImportError(f"hvd_gossip.tensorflow.keras needs Keras 3, not {version}: pip install 'keras>=3.6'")
    if backend != "tensorflow":
        raise ImportError(
            f"hvd_gossip.tensorflow.keras needs Keras on TensorFlow, not on {backend!r}: set KERAS_BACKEND=tensorflow "
            "(with PyTorch: import hvd_gossip.torch as hvd)"
        )


def warn_of_legacy(setting: str | None) -> None:
    """Warns if `tf.keras` is Keras 2 with this value of TF_USE_LEGACY_KERAS."""
    if setting in ("1", "true", "True"):
        warnings.warn(LEGACY, stacklevel=3)


check(keras.__version__, keras.config.backend())
warn_of_legacy(os.environ.get("TF_USE_LEGACY_KERAS"))
