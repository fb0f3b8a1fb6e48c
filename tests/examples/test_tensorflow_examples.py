"""The TensorFlow examples, as their users run them: on every algorithm, with their flags, on scikit-learn's digits."""

from __future__ import annotations

import functools
import gzip
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from _arrays import load_arrays

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.marks import slow_except
from tests.mpi import Completed, run_ranks
from tests.tensorflow_frontend.ranks import needs_tensorflow

MAIN = Path(__file__).with_name("tensorflow_main.py")
ENOUGH = {
    "tensorflow2_keras_mnist": ("--epochs", "6"),
    "keras_mnist_advanced": ("--epochs", "8"),
    "tensorflow2_mnist": ("--steps", "240"),
    "tensorflow_mnist": ("--steps", "500"),
    "tensorflow2_keras_mnist_elastic": ("--epochs", "5"),
}
"""What each example needs to learn the digits."""
GENTLER = {
    ("keras_mnist_advanced", "qg-dsgdm"): ("--lr", "0.01"),
    ("keras_mnist_advanced", "asgd"): ("--lr", "0.025"),
    ("keras_mnist_advanced", "asysg-incon"): ("--lr", "0.025"),
}
"""Where the example's rate is too high: qg-dsgdm's momentum comes on top of the optimizer's, and workers of one shared model each
update it in full."""
GOSSIP = tuple(name for name in ALGORITHMS if name != "allreduce")
SECONDS_A_RUN = 60.0
Run = tuple[str, ...]
"""The name of an example, an algorithm, and the arguments."""


@functools.cache
def launch(runs: tuple[Run, ...]) -> Completed:
    """Carries out these runs in one launch of two ranks."""
    arguments, limit = [json.dumps(runs)], 60.0 + SECONDS_A_RUN * len(runs)
    return run_ranks(2, MAIN, args=arguments, launcher="hvd-gossip-run", timeout=limit, check=False)


def outputs(runs: tuple[Run, ...]) -> list[str]:
    """What each of these runs printed, all of which passed."""
    done = launch(runs)
    for results in done.in_rank_order():
        assert results == ["passed"] * len(runs), results[-1] + done.stdout[-2000:]
    return re.split(r"^.*== .*$", done.stdout, flags=re.MULTILINE)[1:]


def last_figure(pattern: str, text: str) -> float:
    found = re.findall(pattern + r" (\d+\.\d+)", text)
    assert found, text
    return float(found[-1])


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


FIRST = ("tensorflow2_keras_mnist", "tensorflow2_mnist", "tensorflow_mnist")
"""One of each way of training: `fit`, a tape, and a session of TensorFlow 1."""


@needs_tensorflow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("example", slow_except(ENOUGH, *FIRST))
def test_examples_learn(example: str) -> None:
    together = FIRST if example in FIRST else (example,)
    printed = outputs(tuple((name, "allreduce", *ENOUGH[name]) for name in together))[together.index(example)]
    assert last_figure("test accuracy", printed) > 0.85


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.timeout(120 + SECONDS_A_RUN * len(GOSSIP))
@pytest.mark.parametrize("algorithm", GOSSIP)
@pytest.mark.parametrize("example", ENOUGH)
def test_examples_learn_with_every_algorithm(example: str, algorithm: str) -> None:
    printed = outputs(tuple((example, name, *ENOUGH[example], *GENTLER.get((example, name), ())) for name in GOSSIP))
    assert last_figure("test accuracy", printed[GOSSIP.index(algorithm)]) > 0.8


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_examples_do_what_their_flags_say(tmp_path: Path) -> None:
    kept, advanced, graph, loop = (str(tmp_path / name) for name in ("kept", "advanced", "graph", "loop"))
    keras, own, resumed, anew, adasum, failing = outputs(
        (
            ("tensorflow2_keras_mnist", "allreduce", "--epochs", "5", "--fp16-allreduce", "--checkpoint", kept),
            ("tensorflow2_mnist", "allreduce", "--fp16-allreduce", "--steps", "240", "--checkpoint-dir", loop),
            ("keras_mnist_advanced", "adpsgd", "--epochs", "3", "--checkpoints", advanced),
            ("keras_mnist_advanced", "adpsgd", "--epochs", "6", "--checkpoints", advanced),
            ("tensorflow_mnist", "allreduce", "--use-adasum", "--checkpoint-dir", graph),
            ("tensorflow2_keras_mnist_elastic", "allreduce", "--epochs", "5", "--fail-at-step", "27"),
        )
    )
    assert last_figure("test accuracy", keras) > 0.85
    assert "consensus_distance: " in keras
    assert "Epoch 3: finished gradual learning rate warmup to 0.002." in keras
    assert sorted(path.name for path in Path(kept).iterdir()) == [f"{epoch}.keras" for epoch in range(1, 6)]
    assert last_figure("test accuracy", own) > 0.85
    assert list(Path(loop).glob("mnist-1.index"))
    assert "beginning with epoch 1\n" in resumed
    assert "beginning with epoch 4\n" in anew
    assert last_figure("test accuracy", anew) > 0.85
    assert sorted(path.name for path in Path(advanced).iterdir()) == [f"{epoch}.keras" for epoch in range(1, 7)]
    assert last_figure("test accuracy", adasum) > 0.85
    assert list(Path(graph).glob("model.ckpt-600.index")) or list(Path(graph).glob("model.ckpt-300.index"))
    assert failing.count("back to the last commit") == 2
    assert last_figure("test accuracy", failing) > 0.85
