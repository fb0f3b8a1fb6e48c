"""Training on real data, with every algorithm and on as many ranks as a small machine can bear."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.marks import slow_except
from tests.mpi import run_ranks
from tests.torch_frontend.ranks import assert_passed

EXAMPLE = Path(__file__).parents[2] / "examples" / "torch_digits.py"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("n", slow_except(range(1, 6), 3))
def test_every_algorithm_learns_the_digits(n: int) -> None:
    assert_passed("check_digits.py", "check_every_algorithm_learns_the_digits", n, timeout=180)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_example_runs_unchanged_under_every_algorithm(algorithm: str) -> None:
    arguments = ["--algorithm", algorithm]
    done = run_ranks(4, EXAMPLE, launcher="hvd-gossip-run", launcher_args=arguments, timeout=180)
    found = re.search(r"test accuracy: (0\.\d+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) > 0.9
    assert algorithm in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_example_runs_as_a_module_and_accumulates_gradients() -> None:
    source = f"import sys, runpy; sys.argv[0] = 'hvd_gossip'; sys.argv[1:1] = [{str(EXAMPLE)!r}]\n"
    source += "runpy.run_module('hvd_gossip', run_name='__main__', alter_sys=True)\n"
    done = run_ranks(2, source, args=["--epochs", "10", "--backward-passes", "2"], timeout=180)
    found = re.search(r"test accuracy: (0\.\d+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) > 0.9
