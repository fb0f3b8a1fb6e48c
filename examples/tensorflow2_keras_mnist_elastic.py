"""Elastic MNIST with Keras 3's `fit` and Horovod: state is committed, and training goes on from there after a failure.

    hvd-gossip-run -np 2 python examples/tensorflow2_keras_mnist_elastic.py

A failed collective operation takes all workers back to their last commit. `--fail-at-step` shows it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import horovod.tensorflow as tf_hvd
import horovod.tensorflow.keras as hvd
import keras
from _arrays import load_arrays
from _keras_mnist import build_model, own_part, use_own_gpu


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's four files")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.001, help="learning rate of one worker")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--batches-per-commit", type=int, default=10)
    parser.add_argument("--fail-at-step", type=int, default=-1, help="the step at which a failure is played, once")
    return parser.parse_args()


class PlayedFailure(keras.callbacks.Callback):  # type: ignore[misc]
    """Raises, once, what a failed collective operation raises; all workers play it at the same step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._left -= 1
        if self._left == 0:
            print(f"worker {hvd.rank()}: a failure, and back to the last commit", flush=True)
            raise tf_hvd.HorovodInternalError("a failure that --fail-at-step asked for")


def main() -> None:
    args = parse_arguments()
    hvd.init()
    use_own_gpu()
    keras.utils.set_random_seed(args.seed)
    train_set, (images, labels) = load_arrays(args.data_dir)
    model = build_model(images.shape[1:])
    optimizer = hvd.DistributedOptimizer(keras.optimizers.Adam(args.lr * hvd.size()))
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    failure = PlayedFailure(args.fail_at_step)

    def on_reset() -> None:
        """The number of workers may have changed."""
        optimizer.learning_rate = args.lr * hvd.size()

    @hvd.elastic.run  # type: ignore[untyped-decorator]  # mypy does not know horovod
    def train(state: Any) -> None:
        callbacks = [
            failure,
            hvd.elastic.UpdateEpochStateCallback(state),
            hvd.elastic.UpdateBatchStateCallback(state),
            hvd.elastic.CommitStateCallback(state, batches_per_commit=args.batches_per_commit),
        ]
        own = own_part(train_set, args.batch_size, args.seed)
        model.fit(own, epochs=args.epochs - state.epoch, callbacks=callbacks, verbose=2 if hvd.rank() == 0 else 0)

    state = hvd.elastic.KerasState(model, batch=0, epoch=0)
    state.register_reset_callbacks([on_reset])
    train(state)
    with hvd.consensus(model):  # not in Horovod: inside, every worker has the exact mean of all workers' models
        _, accuracy = model.evaluate(images, labels, batch_size=1000, verbose=0)
    if hvd.rank() == 0:
        print(f"test accuracy {accuracy:.4f}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
