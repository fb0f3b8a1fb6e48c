"""MNIST with Keras 3's `fit` and Horovod: an ordinary script, with what Horovod's users put into theirs.

    hvd-gossip-run -np 2 python examples/tensorflow2_keras_mnist.py
    hvd-gossip-run -np 2 python examples/tensorflow2_keras_mnist.py --fp16-allreduce --warmup-epochs 2
    hvd-gossip-run -np 4 --algorithm adpsgd python examples/tensorflow2_keras_mnist.py

Without `--data-dir` it trains on the digits that come with scikit-learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import horovod.tensorflow.keras as hvd
import keras
from _arrays import load_arrays
from _keras_mnist import build_model, own_part, use_own_gpu


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's four files")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.001, help="learning rate of one worker")
    parser.add_argument("--warmup-epochs", type=int, default=3, help="in which it rises to that of all workers")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--fp16-allreduce", action="store_true", help="halve what gradients take on their way")
    parser.add_argument("--checkpoint", type=Path, help="where rank 0 keeps the model, as `{epoch}.keras`")
    return parser.parse_args()


def make_callbacks(scaled_lr: float, args: argparse.Namespace) -> list[Any]:
    chosen = [
        # All workers begin with rank 0's variables, be they random or loaded from a checkpoint.
        hvd.callbacks.BroadcastGlobalVariablesCallback(0),
        # Averages the metrics of all workers at the end of every epoch; before callbacks that use them.
        hvd.callbacks.MetricAverageCallback(),
        hvd.callbacks.LearningRateWarmupCallback(scaled_lr, warmup_epochs=args.warmup_epochs, verbose=hvd.rank() == 0),
        hvd.callbacks.ConsensusCallback(),  # not in Horovod: how far the workers' models are apart
    ]
    if args.checkpoint and hvd.rank() == 0:
        args.checkpoint.mkdir(parents=True, exist_ok=True)
        chosen.append(keras.callbacks.ModelCheckpoint(str(args.checkpoint / "{epoch}.keras")))
    return chosen


def main() -> None:
    args = parse_arguments()
    hvd.init()
    use_own_gpu()
    keras.utils.set_random_seed(args.seed + hvd.rank())
    train_set, (images, labels) = load_arrays(args.data_dir)

    scaled_lr = args.lr * hvd.size()
    compression = hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none
    optimizer = hvd.DistributedOptimizer(keras.optimizers.Adam(scaled_lr), compression=compression)
    model = build_model(images.shape[1:])
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        own_part(train_set, args.batch_size, args.seed),
        epochs=args.epochs,
        callbacks=make_callbacks(scaled_lr, args),
        shuffle=False,  # the data set shuffles itself
        verbose=2 if hvd.rank() == 0 else 0,
    )
    with hvd.consensus(model):  # not in Horovod: inside, every worker has the exact mean of all workers' models
        loss, accuracy = model.evaluate(images, labels, batch_size=1000, verbose=0)
    if hvd.rank() == 0:
        print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
