"""Trains a small convolutional network on scikit-learn's digits with Keras 3: an ordinary Horovod script.

    hvd-gossip-run -np 4 --algorithm allreduce python examples/digits_demo_tensorflow.py
    hvd-gossip-run -np 4 --algorithm adpsgd python examples/digits_demo_tensorflow.py --share-work

The lines without a Horovod counterpart say so. `--log-dir` makes every worker write a JSON line a step. The same as
digits_demo.py, which is for PyTorch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import horovod.tensorflow.keras as hvd
import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

TEST_IMAGES = 357
"""Of the 1,797 images, those (after shuffling) that nobody trains on; 1,440 are left to train on."""
Data = tuple[Any, Any]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=30, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.01, help="a worker; multiplied by the number of workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share-work", action="store_true", help="hand an epoch's images out as workers ask for them")
    parser.add_argument("--log-dir", type=Path, help="where every worker writes what it did")
    return parser.parse_args()


def load_data(seed: int) -> tuple[Data, Data]:
    """The training and the test set: images as float32 (n, 8, 8, 1) in [0, 1], labels as int64 (n,)."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = digits.images.astype(np.float32)[order, :, :, None] / 16
    labels = digits.target.astype(np.int64)[order]
    return (images[:-TEST_IMAGES], labels[:-TEST_IMAGES]), (images[-TEST_IMAGES:], labels[-TEST_IMAGES:])


def build_model() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.Conv2D(128, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )


def make_epochs(data: Data, args: argparse.Namespace) -> Iterator[Any]:
    """This worker's batches of each epoch, as a tf.data.Dataset an epoch."""
    images, labels = data
    if args.share_work:  # not in Horovod: fast workers take more of an epoch's images than slow ones
        every = tf.data.Dataset.from_tensor_slices(data)
        shared = hvd.work_shared(every, seed=args.seed, block=args.batch_size).batch(args.batch_size)
        while True:
            yield shared
    for epoch in range(args.epochs):
        own = np.random.default_rng((args.seed, epoch)).permutation(len(labels))[hvd.rank() :: hvd.size()]
        yield tf.data.Dataset.from_tensor_slices((images[own], labels[own])).batch(args.batch_size)


class Log:
    """Writes one JSON line an event to `worker-<rank>.jsonl`, or nothing without a directory."""

    def __init__(self, directory: Path | None) -> None:
        self._file = None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / f"worker-{hvd.rank()}.jsonl").open("w", buffering=1)

    def write(self, event: str, **values: float) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"event": event, "time": time.time(), **values}) + "\n")


def make_step(model: Any, optimizer: Any) -> Callable[[Any, Any], Any]:
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return step  # type: ignore[no-any-return]


def test_accuracy(model: Any, data: Data) -> float:
    images, labels = data
    return float(np.mean(np.argmax(model(images, training=False), axis=1) == labels))


def main() -> None:
    args = parse_arguments()
    hvd.init()
    keras.utils.set_random_seed(args.seed + hvd.rank())
    train_set, test_set = load_data(args.seed)
    model = build_model()
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(args.lr * hvd.size(), momentum=0.9))
    optimizer.build(model.trainable_variables)
    hvd.broadcast_variables([*model.weights, *optimizer.variables], root_rank=0)

    epochs, step = make_epochs(train_set, args), make_step(model, optimizer)
    log = Log(args.log_dir)
    log.write("start")
    for _ in range(args.epochs):
        for images, labels in next(epochs):
            loss = step(images, labels)
            log.write("step", samples=len(labels), loss=float(loss))
    log.write("end")

    distance = hvd.consensus_distance(model)  # not in Horovod: how far the workers' parameters are from their mean
    with hvd.consensus(model):  # not in Horovod: inside, every worker has the exact mean of all workers' parameters
        accuracy = test_accuracy(model, test_set)
    log.write("result", accuracy=accuracy, consensus_distance=float(distance))
    if hvd.rank() == 0:
        print(f"test accuracy of the averaged model: {accuracy:.2%}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
