"""MNIST with the graphs and sessions of TensorFlow 1 (tf.compat.v1) and Horovod.

    hvd-gossip-run -np 2 python examples/tensorflow_mnist.py
    hvd-gossip-run -np 2 python examples/tensorflow_mnist.py --use-adasum
    hvd-gossip-run -np 4 --algorithm dpsgd python examples/tensorflow_mnist.py

Without `--data-dir` it trains on the digits that come with scikit-learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import tensorflow.compat.v1 as tf
from _arrays import Images, load_arrays

HIDDEN, CLASSES = 128, 10
Feed = dict[Any, Any]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's four files")
    parser.add_argument("--steps", type=int, default=600, help="of all workers together")
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.002, help="learning rate of one worker")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--use-adasum", action="store_true", help="combine updates by Adasum")
    parser.add_argument("--checkpoint-dir", help="where rank 0 keeps its checkpoints")
    return parser.parse_args()


def dense(inputs: Any, outputs: int, name: str) -> Any:
    """A layer of variables of TensorFlow 1."""
    wide = int(inputs.shape[1])
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [wide, outputs], initializer=tf.glorot_uniform_initializer())
        return tf.matmul(inputs, kernel) + tf.get_variable("bias", [outputs], initializer=tf.zeros_initializer())


class TestAccuracy(tf.train.SessionRunHook):  # type: ignore[misc]
    """Prints, when training has ended, how often the workers' models are right: the mean over the workers."""

    def __init__(self, accuracy: Any, feed: Feed) -> None:
        self._mean, self._feed = hvd.allreduce(accuracy, name="test accuracy"), feed

    def end(self, session: Any) -> None:
        mean = session.run(self._mean, self._feed)
        if hvd.rank() == 0:
            print(f"test accuracy {mean:.4f}")


def batches(data: Images, batch_size: int, seed: int) -> Iterator[Images]:
    """This worker's batches, endlessly."""
    own = slice(hvd.rank(), None, hvd.size())
    images, labels = data[0][own], data[1][own]
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(labels))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            yield images[chosen], labels[chosen]


def make_optimizer(args: argparse.Namespace) -> Any:
    """Adasum needs no larger learning rate with more workers."""
    rate = args.lr * (1 if args.use_adasum else hvd.size())
    return hvd.DistributedOptimizer(tf.train.AdamOptimizer(rate), op=hvd.Adasum if args.use_adasum else hvd.Average)


def main() -> None:
    args = parse_arguments()
    hvd.init()
    train_set, test_set = load_arrays(args.data_dir)
    with tf.Graph().as_default():
        tf.set_random_seed(args.seed + hvd.rank())
        images = tf.placeholder(tf.float32, [None, *train_set[0].shape[1:]])
        labels = tf.placeholder(tf.int64, [None])
        flat = tf.reshape(images, [-1, int(np.prod(train_set[0].shape[1:]))])
        logits = dense(tf.nn.relu(dense(flat, HIDDEN, "hidden")), CLASSES, "output")
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32))
        step = tf.train.get_or_create_global_step()
        train = make_optimizer(args).minimize(loss, global_step=step)
        hooks = [
            # All workers begin with rank 0's variables, be they random or restored from a checkpoint.
            hvd.BroadcastGlobalVariablesHook(0),
            tf.train.StopAtStepHook(last_step=args.steps // hvd.size()),
            TestAccuracy(accuracy, dict(zip((images, labels), test_set, strict=True))),
        ]
        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        config.gpu_options.visible_device_list = str(hvd.local_rank())
        folder = args.checkpoint_dir if hvd.rank() == 0 else None
        own = batches(train_set, args.batch_size, args.seed)
        with tf.train.MonitoredTrainingSession(checkpoint_dir=folder, hooks=hooks, config=config) as session:
            while not session.should_stop():
                _, value, number = session.run([train, loss, step], dict(zip((images, labels), next(own), strict=True)))
                if number % 50 == 0 and hvd.rank() == 0:
                    print(f"step {number}: loss {value:.4f}", flush=True)
    hvd.shutdown()


if __name__ == "__main__":
    main()
