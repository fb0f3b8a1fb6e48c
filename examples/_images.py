"""Images that the examples train on: MNIST from its four files where they are, else scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

import torch
from _arrays import read_idx
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

TEST_DIGITS = 357
"""Of scikit-learn's 1,797 digits, those (after shuffling) that nobody trains on."""


def load_images(folder: Path | None, seed: int = 0) -> tuple[TensorDataset, TensorDataset]:
    """The training and the test set: images as float32 (n, 1, height, width) in [0, 1], labels as int64 (n,).

    Args:
        folder: where MNIST's files are (`train-images-idx3-ubyte` and the other three, maybe with `.gz`); None: the digits,
            8 x 8 pixels, which come with scikit-learn.
        seed: of the order in which the digits are divided.

    Raises:
        FileNotFoundError: one of the files is missing.
    """
    if folder is not None:
        return _read_mnist(folder, "train"), _read_mnist(folder, "t10k")
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[order] / 16
    labels = torch.tensor(digits.target)[order]
    train, test = slice(None, -TEST_DIGITS), slice(-TEST_DIGITS, None)
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])


def _read_mnist(folder: Path, part: str) -> TensorDataset:
    images = read_idx(folder / f"{part}-images-idx3-ubyte")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte")
    return TensorDataset(torch.tensor(images / 255, dtype=torch.float32).unsqueeze(1), torch.tensor(labels).long())
