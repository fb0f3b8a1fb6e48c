"""In a rank: the same training in PyTorch and in Keras, under the synchronous algorithms; reports the largest differences."""

from __future__ import annotations

import itertools
import os

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

from typing import Any

import hvd_gossip.tensorflow.keras as hvd_keras
import hvd_gossip.torch as hvd_torch
import keras
import numpy as np
import torch

from tests.mpi import report
from tests.ranks import UNDER_TEST

STEPS, ROWS, WIDTHS = 50, 8, (6, 16, 3)
ALIKE: dict[str, dict[str, Any]] = {"choco": {"compressor": "identity"}}
"""What an algorithm needs to be comparable: other compressors see where a framework lays out, or pads, its parameters."""
MORE: dict[str, dict[str, Any]] = {
    "dpsgd, every second step": {"algorithm": "dpsgd", "mixing_order": "sequential", "mixing_period": 2},
    "dpsgd with exact averages": {"algorithm": "dpsgd", "global_average_every": 20},
}


def compared() -> dict[str, dict[str, Any]]:
    """Settings by name: all synchronous algorithms, in every order that they know."""
    synchronous = {name: algorithm for name, algorithm in UNDER_TEST.items() if algorithm.synchronous}
    chosen = {
        f"{name}, {order}": {"algorithm": name, "mixing_order": order, **ALIKE.get(name, {})}
        for name, algorithm in synchronous.items()
        for order in algorithm.orders or ("auto",)
    }
    return chosen | MORE


def first_weights(rank: int) -> list[np.ndarray]:
    """Kernels and biases, layer by layer; different on every rank."""
    generator = np.random.default_rng(rank)
    shapes = [shape for pair in itertools.pairwise(WIDTHS) for shape in (pair, pair[1:])]
    return [generator.normal(scale=0.4, size=shape).astype(np.float32) for shape in shapes]


def batches(rank: int) -> tuple[np.ndarray, np.ndarray]:
    """All inputs and labels of a rank, in order."""
    generator = np.random.default_rng((7, rank))
    inputs = generator.normal(size=(STEPS * ROWS, WIDTHS[0])).astype(np.float32)
    return inputs, generator.integers(WIDTHS[-1], size=STEPS * ROWS)


def train_torch(**settings: Any) -> list[np.ndarray]:
    rank = hvd_torch.rank()
    model = torch.nn.Sequential(torch.nn.Linear(*WIDTHS[:2]), torch.nn.Tanh(), torch.nn.Linear(*WIDTHS[1:]))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), first_weights(rank), strict=True):
            parameter.copy_(torch.from_numpy(value.T))
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = hvd_torch.DistributedOptimizer(plain, named_parameters=model.named_parameters(), **settings)
    inputs, labels = map(torch.from_numpy, batches(rank))
    for start in range(0, len(inputs), ROWS):
        part = slice(start, start + ROWS)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[part]), labels[part]).backward()
        optimizer.step()
    with hvd_torch.consensus(model):
        mean = [parameter.detach().numpy().T.copy() for parameter in model.parameters()]
    return [*mean, *(parameter.detach().numpy().T.copy() for parameter in model.parameters())]


def train_keras(**settings: Any) -> list[np.ndarray]:
    rank = hvd_keras.rank()
    layers = keras.layers
    model = keras.Sequential([layers.Input(WIDTHS[:1]), layers.Dense(WIDTHS[1], "tanh"), layers.Dense(WIDTHS[2])])
    model.set_weights(first_weights(rank))
    plain = keras.optimizers.SGD(0.1, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=hvd_keras.DistributedOptimizer(plain, **settings), loss=loss)
    model.fit(*batches(rank), batch_size=ROWS, shuffle=False, verbose=0)
    with hvd_keras.consensus(model):
        mean = model.get_weights()
    return [*mean, *model.get_weights()]


def main() -> None:
    hvd_torch.init()
    results = {}
    for name, settings in compared().items():
        ours, theirs = train_torch(**settings), train_keras(**settings)
        moved = max(float(np.abs(a - b).max()) for a, b in zip(first_weights(hvd_torch.rank()), ours[4:], strict=True))
        results[name] = [moved, *(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))]
    report(results)
    hvd_torch.shutdown()


if __name__ == "__main__":
    main()
