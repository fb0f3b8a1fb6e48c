"""The PyTorch examples, run as their users run them: on every algorithm, with their flags, on scikit-learn's digits."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from _images import load_images
from _resnet import ResNet

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.marks import slow_except
from tests.mpi import Completed, run_ranks

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL_NET = ("--depth", "14", "--width", "4")


def run_example(name: str, *arguments: str, n: int = 2, flags: tuple[str, ...] = ()) -> Completed:
    return run_ranks(
        n, EXAMPLES / name, launcher="hvd-gossip-run", args=[*arguments], launcher_args=[*flags], timeout=150
    )


def last_figure(pattern: str, done: Completed) -> float:
    found = re.findall(pattern + r" (\d+\.\d+)", done.stdout)
    assert found, done.stdout
    return float(found[-1])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("algorithm", slow_except(ALGORITHMS))
def test_mnist_learns_with_every_algorithm(algorithm: str) -> None:
    done = run_example("torch_mnist.py", "--epochs", "8", flags=("--algorithm", algorithm))
    assert last_figure("test accuracy", done) > 0.85


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(("--use-adasum",), marks=pytest.mark.slow),
        ("--fp16-allreduce", "--gradient-predivide-factor", "2"),
        pytest.param(("--use-mixed-precision",), marks=pytest.mark.slow),
    ],
)
def test_mnist_learns_with_its_flags(flags: tuple[str, ...]) -> None:
    done = run_example("torch_mnist.py", "--epochs", "9", *flags)
    assert last_figure("test accuracy", done) > 0.8


@pytest.mark.timeout(120)
def test_elastic_mnist_goes_on_from_its_last_commit() -> None:
    done = run_example("torch_mnist_elastic.py", "--epochs", "8", "--fail-at-step", "27")
    assert done.stdout.count("back to the last commit") == 2
    assert last_figure("epoch 8: test accuracy", done) > 0.8


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_elastic_mnist_runs_with_every_algorithm(algorithm: str) -> None:
    done = run_example(
        "torch_mnist_elastic.py", "--epochs", "8", "--fail-at-step", "27", flags=("--algorithm", algorithm)
    )
    assert last_figure("epoch 8: test accuracy", done) > 0.7


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_resnet_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    arguments = (*SMALL_NET, "--batches-per-allreduce", "2", "--checkpoint-format", str(tmp_path / "{epoch}.pt"))
    first = run_example("torch_imagenet_resnet50.py", *arguments, "--epochs", "1")
    assert "epoch 1: validation" in first.stdout
    second = run_example("torch_imagenet_resnet50.py", *arguments, "--epochs", "2")
    assert "epoch 1: training" not in second.stdout
    assert "epoch 2: validation" in second.stdout
    assert last_figure("training loss", second) < last_figure("training loss", first)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_resnet_trains_with_every_algorithm(algorithm: str, tmp_path: Path) -> None:
    arguments = (*SMALL_NET, "--epochs", "1", "--checkpoint-format", str(tmp_path / "{epoch}.pt"))
    done = run_example("torch_imagenet_resnet50.py", *arguments, flags=("--algorithm", algorithm))
    assert "epoch 1: validation" in done.stdout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("algorithm", slow_except(ALGORITHMS))
def test_the_synthetic_benchmark_prints_a_rate(algorithm: str) -> None:
    sizes = ("--image-size", "16", "--batch-size", "4", "--num-iters", "2", "--num-batches-per-iter", "2")
    done = run_example("torch_synthetic_benchmark.py", *SMALL_NET, *sizes, flags=("--algorithm", algorithm))
    assert last_figure("2 workers:", done) > 0


def test_images_are_read_from_the_files_of_mnist(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    for part in ("train", "t10k"):
        images = struct.pack(">4i", 0x803, *pixels.shape) + pixels.tobytes()
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">2i", 0x801, 2) + bytes([7, 1])
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    for data in load_images(tmp_path):
        read, classes = data.tensors
        assert read.shape == (2, 1, 3, 4)
        assert (read.squeeze(1).numpy() * 255).round().astype(int).tolist() == pixels.tolist()
        assert classes.tolist() == [7, 1]


def test_the_fifty_layers_are_those_of_the_paper() -> None:
    """25,557,032 parameters with 1,000 classes, as every ResNet-50 has."""
    assert sum(parameter.numel() for parameter in ResNet().parameters()) == 25_557_032


def test_the_learning_rate_warms_up_from_one_workers() -> None:
    script = f"""
import sys
from argparse import Namespace
sys.path.insert(0, {str(EXAMPLES)!r})
import horovod.torch as hvd
from tests.mpi import report
from torch_imagenet_resnet50 import learning_rate

hvd.init()
args = Namespace(base_lr=0.1, warmup_epochs=5, batches_per_allreduce=1, use_adasum=False)
report([learning_rate(epoch, args) for epoch in (0, 2.5, 5, 30, 85)])
hvd.shutdown()
"""
    for rates in run_ranks(2, script, launcher="hvd-gossip-run").in_rank_order():
        assert rates == pytest.approx([0.1, 0.15, 0.2, 0.02, 0.0002])
