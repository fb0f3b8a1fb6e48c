"""Trains the same perceptron with every normalization layer on batches that say little about the data set."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import hvd_gossip.torch as hvd
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from benchmarks.job import Meeting, serve
from benchmarks.options import NormalizationOptions

TEST_IMAGES, CLASSES, WIDTH, GROUPS, TINY = 357, 10, 64, 8, 2
Record = dict[str, Any]
Images = tuple[torch.Tensor, torch.Tensor]
Layer = Callable[[int], nn.Module]


def measure(options: NormalizationOptions, meeting: Meeting, case: str) -> list[Record]:
    """A record a layer, learning rate and seed: (step, accuracy) pairs. The same on all ranks."""
    hvd.init(algorithm=options.algorithm)
    try:
        train, test = load_images()
        return [
            {"layer": layer, "rate": rate, "seed": seed,
             "curve": _train(options, case, layer, rate, seed, train, test)}
            for layer in options.layers
            for rate in options.rates
            for seed in range(options.seeds)
        ]  # fmt: skip
    finally:
        hvd.shutdown()


def _train(
    options: NormalizationOptions, case: str, layer: str, rate: float, seed: int, train: Images, test: Images
) -> list[tuple[int, float]]:
    torch.manual_seed(seed)
    model = make_model(make_layer(layer, options.momentum))
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    plain = torch.optim.SGD(model.parameters(), lr=rate)
    optimizer = hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters())
    images, labels = train
    batches = choose(case, labels.numpy(), hvd.rank(), hvd.size(), options.batch, seed)
    curve = []
    for step in range(1, options.steps + 1):
        chosen = next(batches)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        if step * options.points % options.steps < options.points:
            curve.append((step, accuracy(model, test)))
    del optimizer, plain, model
    gc.collect()
    return curve


def load_images() -> tuple[Images, Images]:
    """Training and test images: float32 (n, 64) in [0, 1], labels int64 (n,)."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = torch.from_numpy((digits.data[order] / 16).astype(np.float32))
    labels = torch.from_numpy(digits.target[order].astype(np.int64))
    return (images[:-TEST_IMAGES], labels[:-TEST_IMAGES]), (images[-TEST_IMAGES:], labels[-TEST_IMAGES:])


def make_layer(name: str, momentum: float) -> Layer:
    """Makes layers of so many channels.

    Raises:
        ValueError: no such layer.
    """
    full: Layer = lambda channels: hvd.FullNorm1d(channels, momentum=momentum)  # noqa: E731
    layers: dict[str, Layer] = {
        "batch": lambda channels: nn.BatchNorm1d(channels, momentum=momentum),
        "sync": lambda channels: hvd.SyncBatchNorm(channels, momentum=momentum),
        "group": lambda channels: nn.GroupNorm(GROUPS, channels),
        "full": full,
        "full-untracked": lambda channels: hvd.FullNorm1d(channels, momentum=momentum, track_gradients=False),
        "full-over-workers": lambda channels: hvd.FullNorm1d(
            channels, momentum=momentum, process_set=hvd.global_process_set
        ),
    }
    if name not in layers:
        raise ValueError(f"no normalization layer {name!r}; there are {', '.join(layers)}")
    return layers[name]


def make_model(layer: Layer) -> nn.Module:
    """(n, 64) -> (n, 10); two hidden layers, each normalized before its ReLU."""
    return nn.Sequential(
        nn.Linear(64, WIDTH), layer(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), layer(WIDTH), nn.ReLU(),
        nn.Linear(WIDTH, CLASSES),
    )  # fmt: skip


def choose(case: str, labels: np.ndarray, rank: int, ranks: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """The indices of a rank's batches, endlessly. All ranks see different images.

    Args:
        case: "tiny" (2 images), "one-class" (a class drawn anew for each batch), "skewed" (only images whose class is the
            rank's, modulo the number of ranks).

    Raises:
        ValueError: no such case.
    """
    if case not in ("tiny", "one-class", "skewed"):
        raise ValueError(f"no kind of batches {case!r}; there are tiny, one-class, skewed")
    generator = np.random.default_rng((seed, rank))
    own = np.arange(rank, len(labels), ranks)
    if case == "skewed":
        own = np.flatnonzero(labels % ranks == rank)
    while True:
        wanted = own[labels[own] == generator.integers(CLASSES)] if case == "one-class" else own
        yield generator.choice(wanted, TINY if case == "tiny" else batch, replace=False)


def accuracy(model: nn.Module, test: Images) -> float:
    """Of the average of all ranks' models, on the test images. A collective."""
    model.eval()
    with hvd.consensus(model), torch.no_grad():
        right = model(test[0]).argmax(dim=1) == test[1]
    model.train()
    return float(right.float().mean())


if __name__ == "__main__":
    serve(NormalizationOptions, measure)
