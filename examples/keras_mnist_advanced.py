"""MNIST with `horovod.keras`: learning rates by epoch, augmented images, and training that goes on from a checkpoint.

    hvd-gossip-run -np 2 python examples/keras_mnist_advanced.py --checkpoints /tmp/mnist
    hvd-gossip-run -np 4 --algorithm dpsgd python examples/keras_mnist_advanced.py

Started again with the same `--checkpoints`, it loads the last one, with its distributed optimizer, and goes on from there.
Without `--data-dir` it trains on the digits that come with scikit-learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import horovod.keras as hvd
import keras
from _arrays import load_arrays
from _keras_mnist import build_model, own_part, use_own_gpu


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's four files")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.05, help="learning rate of one worker")
    parser.add_argument("--warmup-epochs", type=int, default=2, help="in which it rises to that of all workers")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--checkpoints", type=Path, help="folder in which rank 0 keeps `{epoch}.keras`")
    return parser.parse_args()


def last_epoch(folder: Path | None) -> int:
    """The epoch after which rank 0 has last saved the model, told to everybody: the others need not see its disk. 0: none."""
    saved = [int(path.stem) for path in folder.glob("*.keras")] if folder and hvd.rank() == 0 else []
    return int(hvd.broadcast(max(saved, default=0), 0, name="last epoch"))


def make_model(shape: tuple[int, ...], epoch: int, args: argparse.Namespace) -> Any:
    """A new model or, on rank 0, the one that was saved; the callback below gives the others its variables."""
    if epoch and hvd.rank() == 0:
        return hvd.load_model(args.checkpoints / f"{epoch}.keras")
    model = build_model(shape)
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(args.lr * hvd.size(), momentum=0.9))
    model.compile(
        optimizer=optimizer,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        experimental_run_tf_function=False,  # stands in scripts of TensorFlow 2.0; nothing needs it any more
    )
    return model


def make_callbacks(args: argparse.Namespace) -> list[Any]:
    rate, after = args.lr * hvd.size(), args.warmup_epochs
    chosen = [
        hvd.callbacks.BroadcastGlobalVariablesCallback(0),
        hvd.callbacks.MetricAverageCallback(),
        hvd.callbacks.LearningRateWarmupCallback(rate, warmup_epochs=after, verbose=hvd.rank() == 0),
        hvd.callbacks.LearningRateScheduleCallback(rate, 1.0, start_epoch=after, end_epoch=after + 4),
        hvd.callbacks.LearningRateScheduleCallback(rate, 0.1, start_epoch=after + 4),
    ]
    if args.checkpoints and hvd.rank() == 0:
        args.checkpoints.mkdir(parents=True, exist_ok=True)
        chosen.append(keras.callbacks.ModelCheckpoint(str(args.checkpoints / "{epoch}.keras")))
    return chosen


def main() -> None:
    args = parse_arguments()
    hvd.init()
    use_own_gpu()
    keras.utils.set_random_seed(args.seed + hvd.rank())
    train_set, (images, labels) = load_arrays(args.data_dir)
    first = last_epoch(args.checkpoints)
    if hvd.rank() == 0:
        print(f"beginning with epoch {first + 1}", flush=True)
    model = make_model(images.shape[1:], first, args)
    shift = keras.layers.RandomTranslation(0.08, 0.08, fill_mode="constant")
    model.fit(
        own_part(train_set, args.batch_size, args.seed).map(lambda batch, classes: (shift(batch), classes)),
        initial_epoch=first,
        epochs=args.epochs,
        callbacks=make_callbacks(args),
        verbose=2 if hvd.rank() == 0 else 0,
    )
    with hvd.consensus(model):  # not in Horovod: inside, every worker has the exact mean of all workers' models
        loss, accuracy = model.evaluate(images, labels, batch_size=1000, verbose=0)
    if hvd.rank() == 0:
        print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
