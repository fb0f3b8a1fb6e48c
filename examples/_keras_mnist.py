"""What the TensorFlow examples have in common: a GPU a process, a part of the data a worker, a small network."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as hvd
import keras
import tensorflow as tf
from _arrays import Images


def use_own_gpu() -> None:
    """Each process uses the GPU of its place on its host, if there are GPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        tf.config.set_visible_devices(gpus[hvd.local_rank()], "GPU")


def own_part(data: Images, batch_size: int, seed: int) -> Any:
    """This worker's part of the training set, all parts being equally long, in batches, shuffled anew each epoch."""
    images, labels = data
    each = len(labels) // hvd.size()
    part = slice(hvd.rank() * each, (hvd.rank() + 1) * each)
    dataset = tf.data.Dataset.from_tensor_slices((images[part], labels[part]))
    return dataset.shuffle(each, seed=seed).batch(batch_size)


def build_model(shape: tuple[int, ...]) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input(shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
