"""MNIST with TensorFlow 2 and Horovod: a training loop of one's own around a distributed gradient tape.

    hvd-gossip-run -np 2 python examples/tensorflow2_mnist.py
    hvd-gossip-run -np 4 --algorithm sgp python examples/tensorflow2_mnist.py

Without `--data-dir` it trains on the digits that come with scikit-learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import horovod.tensorflow as hvd
import keras
import tensorflow as tf
from _arrays import load_arrays
from _keras_mnist import build_model, own_part, use_own_gpu


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's four files")
    parser.add_argument("--steps", type=int, default=300, help="of all workers together")
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.001, help="learning rate of one worker")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--fp16-allreduce", action="store_true", help="halve what gradients take on their way")
    parser.add_argument("--checkpoint-dir", type=Path, help="where rank 0 keeps model and optimizer at the end")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    hvd.init()
    use_own_gpu()
    keras.utils.set_random_seed(args.seed + hvd.rank())
    train_set, (images, labels) = load_arrays(args.data_dir)
    model = build_model(images.shape[1:])
    optimizer = keras.optimizers.Adam(args.lr * hvd.size())
    loss_of = keras.losses.SparseCategoricalCrossentropy()
    compression = hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def training_step(batch: Any, classes: Any, is_first: bool) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(classes, model(batch, training=True))
        # Averages the gradients; with a gossip algorithm mixes the variables with neighbours' ones instead.
        tape = hvd.DistributedGradientTape(tape, compression=compression)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        if is_first:  # after the step, which has made the optimizer's variables: all workers go on from rank 0's
            hvd.broadcast_variables([*model.weights, *optimizer.variables], root_rank=0)
        return loss

    batches = own_part(train_set, args.batch_size, args.seed).repeat().take(args.steps // hvd.size())
    for number, (batch, classes) in enumerate(batches):
        loss = training_step(batch, classes, number == 0)
        if number % 25 == 0 and hvd.rank() == 0:
            print(f"step {number}: loss {float(loss):.4f}", flush=True)
    if args.checkpoint_dir and hvd.rank() == 0:
        tf.train.Checkpoint(model=model, optimizer=optimizer).save(str(args.checkpoint_dir / "mnist"))
    with hvd.consensus(model):  # not in Horovod: inside, every worker has the exact mean of all workers' models
        right = tf.argmax(model(images, training=False), axis=1) == labels
    if hvd.rank() == 0:
        print(f"test accuracy {float(tf.reduce_mean(tf.cast(right, tf.float32))):.4f}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
