"""PyTorch and Keras train alike: the same model, first weights, order of data, algorithm and seed; 50 steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.mpi import run_ranks
from tests.ranks import ALGORITHMS_OF_CHECKS, FEW
from tests.tensorflow_frontend.ranks import needs_tensorflow

TOLERANCE = 1e-4


@needs_tensorflow
@pytest.mark.timeout(250)
@pytest.mark.parametrize("n", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_parameters_are_equal_after_fifty_steps(n: int) -> None:
    pytest.importorskip("torch")
    environment = {"HVD_GOSSIP_WAIT_TIMEOUT": "60", ALGORITHMS_OF_CHECKS: ",".join(FEW if n == 2 else ALGORITHMS)}
    done = run_ranks(n, Path(__file__).with_name("parity_main.py"), timeout=240, env=environment)
    for rank, results in done.results.items():
        assert {
            "allreduce, auto",
            "dpsgd, overlap",
            "dpsgd, sequential",
            *(["sgp, sequential"] if n == 3 else []),
        } <= set(results)
        for algorithm, (moved, *differences) in results.items():
            assert moved > 0.1, f"rank {rank}, {algorithm}: nothing was learned"
            assert max(differences) <= TOLERANCE, f"rank {rank}, {algorithm}: {differences}"
