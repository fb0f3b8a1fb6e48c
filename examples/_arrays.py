"""Images as NumPy arrays: MNIST from its four files where they are, else scikit-learn's digits."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

TEST_DIGITS = 357
"""Of scikit-learn's 1,797 digits, those (after shuffling) that nobody trains on."""
Images = tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.int64]]]
"""Images (n, height, width, 1) in [0, 1], and labels (n,)."""


def load_arrays(folder: Path | None, seed: int = 0) -> tuple[Images, Images]:
    """The training and the test set.

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
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = digits.images.astype(np.float32)[order, :, :, None] / 16
    labels = digits.target.astype(np.int64)[order]
    train, test = slice(None, -TEST_DIGITS), slice(-TEST_DIGITS, None)
    return (images[train], labels[train]), (images[test], labels[test])


def read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An array of bytes in the IDX format: a word whose last byte is the number of dimensions, the dimensions, the data."""
    packed = path.with_name(path.name + ".gz")
    data = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    dimensions = data[3]
    shape = np.frombuffer(data, ">i4", dimensions, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _read_mnist(folder: Path, part: str) -> Images:
    images = read_idx(folder / f"{part}-images-idx3-ubyte")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte")
    return (images / np.float32(255))[..., None].astype(np.float32), labels.astype(np.int64)
