"""Importing this says which Keras is missing: Keras 3 on TensorFlow."""

from __future__ import annotations

import keras


def check(version: str, backend: str) -> None:
    """Raises ImportError unless this is Keras 3 on TensorFlow."""
    if not version.startswith("3."):
        raise ImportError(f"hvd_gossip.tensorflow.keras needs Keras 3, not {version}: pip install 'keras>=3.6'")
    if backend != "tensorflow":
        raise ImportError(
            f"hvd_gossip.tensorflow.keras needs Keras on TensorFlow, not on {backend!r}: set KERAS_BACKEND=tensorflow "
            "(with PyTorch: import hvd_gossip.torch as hvd)"
        )


check(keras.__version__, keras.config.backend())
