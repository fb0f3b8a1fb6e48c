"""The Keras example, run as its users run it: on every algorithm, with its flags, on scikit-learn's digits."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from _arrays import load_arrays

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.mpi import Completed, run_ranks
from tests.tensorflow_frontend.ranks import needs_tensorflow

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, *arguments: str, flags: tuple[str, ...] = ()) -> Completed:
    return run_ranks(
        2, EXAMPLES / name, launcher="hvd-gossip-run", args=[*arguments], launcher_args=[*flags], timeout=170
    )


def last_figure(pattern: str, done: Completed) -> float:
    found = re.findall(pattern + r" (\d+\.\d+)", done.stdout)
    assert found, done.stdout
    return float(found[-1])


@needs_tensorflow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=[] if name == "allreduce" else pytest.mark.slow) for name in ALGORITHMS]
)
def test_keras_mnist_learns_with_every_algorithm(algorithm: str, tmp_path: Path) -> None:
    arguments = ("--epochs", "6", "--checkpoint", str(tmp_path))
    done = run_example("tensorflow2_keras_mnist.py", *arguments, flags=("--algorithm", algorithm))
    assert last_figure("test accuracy", done) > 0.85
    assert "consensus_distance: " in done.stdout
    assert "Epoch 3: finished gradual learning rate warmup to 0.002." in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{epoch}.keras" for epoch in range(1, 7)]


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_keras_mnist_learns_with_compressed_gradients() -> None:
    done = run_example("tensorflow2_keras_mnist.py", "--fp16-allreduce", "--warmup-epochs", "2")
    assert last_figure("test accuracy", done) > 0.85


def test_arrays_are_read_from_the_files_of_mnist(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    for part in ("train", "t10k"):
        images = struct.pack(">4i", 0x803, *pixels.shape) + pixels.tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">2i", 0x801, 2) + bytes([7, 1])
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    for read, classes in load_arrays(tmp_path):
        assert read.shape == (2, 3, 4, 1)
        assert (read[..., 0] * 255).round().astype(int).tolist() == pixels.tolist()
        assert classes.tolist() == [7, 1]
    train, test = load_arrays(None)
    assert (len(train[1]), len(test[1])) == (1440, 357)
