"""A package with one algorithm and an entry point, as docs/own-algorithm.md shows it: tested, and trained with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mpi import run_ranks

ROOT = Path(__file__).parents[2]
TRAINING = """
import numpy as np
from hvd_gossip import runtime

rt = runtime.init(wait_timeout=30)
x = np.full(4, float(rt.world.rank))
worker = rt.attach([x])
for _ in range(20):
    worker.step(lambda: None)
rt.detach(worker)
print("rank", rt.world.rank, worker.algorithm.name, np.abs(x - 0.5).max() < 0.1, flush=True)
runtime.shutdown()
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What `pip install` would make of the page's files, in a folder of its own."""
    page = (ROOT / "docs" / "own-algorithm.md").read_text()
    for name, code in re.findall(r"```python file=(\S+)\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(code)
    metadata = tmp_path / "halfway-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: halfway\nVersion: 1.0\n")
    line = re.search(r"```toml\n\[project.entry-points.\"(.*)\"\]\n(.*) = \"(.*)\"\n", page)
    assert line is not None
    (metadata / "entry_points.txt").write_text(f"[{line[1]}]\n{line[2]} = {line[3]}\n")
    return tmp_path


def environment(package: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}


@pytest.mark.timeout(300)
def test_it_is_under_the_conformance_list_at_once(package: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(package)]
    chosen = ["-k", "iterates or one_worker or comes_to or come_to or checkpoint or tokens or slowest", str(package)]
    done = subprocess.run(
        [*command, *chosen],
        cwd=package,
        env=environment(package),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    collected = re.search(r"(\d+) passed", done.stdout)
    assert collected is not None
    assert int(collected[1]) >= 25


def test_a_mistake_in_it_is_found(package: Path) -> None:
    """The same equations, another algorithm: the list is no formality."""
    source = (package / "halfway.py").read_text()
    (package / "halfway.py").write_text(source.replace('"share", "0.5"', '"share", "0.4"'))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(package),
        "-k",
        "iterates",
    ]
    done = subprocess.run(
        [*command, str(package)],
        cwd=package,
        env=environment(package),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 1
    assert "4 failed" in done.stdout


@pytest.mark.timeout(120)
def test_the_launcher_trains_with_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(package))
    (package / "training.py").write_text(TRAINING)
    arguments = ["--algorithm", "halfway", "--algorithm-options", "share=0.75"]
    done = run_ranks(2, package / "training.py", launcher="hvd-gossip-run", launcher_args=arguments, timeout=110)
    for rank in range(2):
        assert f"rank {rank} halfway True" in done.stdout, done.stdout + done.stderr
    listed = subprocess.run(
        [sys.executable, "-m", "hvd_gossip.launch.cli", "--list-algorithms"],
        env=environment(package), capture_output=True, text=True, timeout=150, check=True,
    )  # fmt: skip
    assert "showing how it" in listed.stdout
