"""A Horovod script, unchanged, under the launcher: it trains, and its errors are told apart from their consequences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.launch.waiting import LIMIT, TEST_LIMIT
from tests.mpi import run_ranks

pytestmark = pytest.mark.timeout(TEST_LIMIT)  # importing PyTorch once a rank takes long on a busy machine

TRAIN = """
    import sys

    import horovod.torch as hvd
    import torch

    from tests.mpi import report

    hvd.init()
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), named_parameters=model.named_parameters()
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    inputs = torch.randn(64, 4)
    targets = inputs @ torch.arange(4.0)[:, None]
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = (model(inputs[hvd.rank() :: hvd.size()]) - targets[hvd.rank() :: hvd.size()]).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if "raise" in sys.argv and step == 2 and hvd.rank() == 1:
            raise RuntimeError("no more data")
    report({"module": hvd.__name__, "rank": hvd.rank(), "size": hvd.size(), "first": losses[0], "last": losses[-1]})
"""


@pytest.mark.parametrize(("np", "algorithm"), [(2, "adpsgd"), pytest.param(3, "allreduce", marks=pytest.mark.slow)])
def test_a_horovod_script_trains_by_the_algorithm_of_the_flag(np: int, algorithm: str) -> None:
    flags = ["--algorithm", algorithm, "--threads-per-rank", "1"]
    done = run_ranks(np, TRAIN, launcher="hvd-gossip-run", launcher_args=flags, timeout=LIMIT)
    results = done.in_rank_order()
    assert [(result["rank"], result["size"]) for result in results] == [(rank, np) for rank in range(np)]
    assert {result["module"] for result in results} == {"hvd_gossip.torch"}
    assert all(result["last"] < 0.1 * result["first"] for result in results)
    assert f"hvd-gossip: {algorithm}" in done.stderr + done.stdout


def test_the_rank_that_raised_is_named_with_its_traceback() -> None:
    """horovod#534: an exception on one rank showed as its consequences on the others, stalled operations and a shutdown."""
    done = run_ranks(2, TRAIN, ["raise"], launcher="hvd-gossip-run", check=False, timeout=LIMIT)
    assert done.returncode == 1
    said = done.stderr[done.stderr.index("hvd-gossip-run:") :]
    assert re.match(r"hvd-gossip-run: rank 1 on \S+ failed first, after .* s: exit code 1\n", said)
    assert said.rstrip().endswith("RuntimeError: no more data")


@pytest.mark.parametrize("how", [["script.py"], ["-m", "script"]])
def test_mpirun_may_start_the_ranks_as_well(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "script.py").write_text(
        "import horovod.torch as hvd\nfrom tests.mpi import report\n"
        "hvd.init()\nreport([hvd.rank(), hvd.size()])\nhvd.shutdown()\n"
    )
    runner = f"import os, runpy, sys; os.chdir({str(tmp_path)!r}); sys.path[0] = ''; sys.argv[1:] = {how!r}; "
    runner += "runpy.run_module('hvd_gossip', run_name='__main__', alter_sys=True)"
    done = run_ranks(2, runner, timeout=LIMIT)
    assert done.in_rank_order() == [[0, 2], [1, 2]]
