"""Trains the same perceptron with the bare optimizer and with each algorithm, in blocks that alternate, in one framework."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.job import Meeting, serve
from benchmarks.options import ParityOptions
from hvd_gossip import runtime

TEST_IMAGES, CLASSES, RATE = 357, 10, 0.02
Record = dict[str, Any]
Part = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Trained:
    """A model under training.

    Attributes:
        run: makes so many steps on the rank's images, from the first one on.
        accuracy: of the average of all ranks' models; a collective.
    """

    run: Callable[[], None]
    accuracy: Callable[[], float]


def measure(options: ParityOptions, meeting: Meeting, framework: str) -> list[Record]:
    """A record a size and algorithm."""
    make = {"torch": make_torch, "tensorflow": make_keras}[framework]
    hvd = _module(framework)
    hvd.init()
    try:
        images = load_images(hvd.rank(), options)
        return [
            _measure(options, meeting, megabytes, algorithm, make, images)
            for megabytes in options.megabytes
            for algorithm in options.algorithms
        ]
    finally:
        hvd.shutdown()


def _measure(
    options: ParityOptions,
    meeting: Meeting,
    megabytes: float,
    algorithm: str,
    make: Callable[..., Trained],
    images: tuple[Part, Part],
) -> Record:
    hidden = round(megabytes * 1e6 / 4 / (64 + CLASSES))
    plain, distributed = (make(options, hidden, images, which) for which in (None, algorithm))
    record: Record = {"megabytes": megabytes, "algorithm": algorithm, "batch": options.batch}
    record |= {"step_seconds": [], "plain_seconds": [], "waited_share": []}
    engine = runtime.current().engine
    for repetition in range(options.repetitions + 1):
        for name, trained in (("plain_seconds", plain), ("step_seconds", distributed)):
            meeting.all_here("block", options.ranks)
            start, waited = time.monotonic(), engine.waited
            trained.run()
            seconds = time.monotonic() - start
            if repetition:
                record[name].append(seconds / options.steps)
                if trained is distributed:
                    record["waited_share"].append((engine.waited - waited) / seconds)
    record["accuracy"] = distributed.accuracy()
    del plain, distributed, trained
    gc.collect()
    meeting.all_here("algorithm", options.ranks)
    return record


def load_images(rank: int, options: ParityOptions) -> tuple[Part, Part]:
    """This rank's training images and the test images: float32 (n, 64) in [0, 1], labels int64 (n,)."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = (digits.data[order] / 16).astype(np.float32), digits.target[order].astype(np.int64)
    wanted = np.arange(rank, rank + options.steps * options.batch * options.ranks, options.ranks)
    own = wanted % (len(labels) - TEST_IMAGES)
    return (images[own], labels[own]), (images[-TEST_IMAGES:], labels[-TEST_IMAGES:])


def make_torch(options: ParityOptions, hidden: int, images: tuple[Part, Part], algorithm: str | None) -> Trained:
    import hvd_gossip.torch as hvd
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, CLASSES))
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    if algorithm is not None:
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        named = model.named_parameters()
        optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=named, algorithm=algorithm)
    (inputs, labels), (test_inputs, test_labels) = (tuple(map(torch.from_numpy, part)) for part in images)

    def run() -> None:
        for start in range(0, len(inputs), options.batch):
            part = slice(start, start + options.batch)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[part]), labels[part]).backward()
            optimizer.step()

    def accuracy() -> float:
        with hvd.consensus(model), torch.no_grad():
            return float((model(test_inputs).argmax(dim=1) == test_labels).float().mean())

    return Trained(run, accuracy)


def make_keras(options: ParityOptions, hidden: int, images: tuple[Part, Part], algorithm: str | None) -> Trained:
    import hvd_gossip.tensorflow.keras as hvd
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([layers.Input((64,)), layers.Dense(hidden, "relu"), layers.Dense(CLASSES)])
    optimizer = keras.optimizers.SGD(RATE, momentum=0.9)
    if algorithm is not None:
        hvd.broadcast_variables(model.variables, root_rank=0)
        optimizer = hvd.DistributedOptimizer(optimizer, algorithm=algorithm)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    (inputs, labels), (test_inputs, test_labels) = images

    def run() -> None:
        model.fit(inputs, labels, batch_size=options.batch, shuffle=False, verbose=0)

    def accuracy() -> float:
        with hvd.consensus(model):
            return float((model.predict(test_inputs, verbose=0).argmax(axis=1) == test_labels).mean())

    return Trained(run, accuracy)


def _module(framework: str) -> Any:
    if framework == "torch":
        import hvd_gossip.torch as hvd_torch

        return hvd_torch
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    import hvd_gossip.tensorflow.keras as hvd_keras

    return hvd_keras


if __name__ == "__main__":
    serve(ParityOptions, measure)
