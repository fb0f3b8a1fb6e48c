"""WorkSharingSampler, in real ranks."""

from __future__ import annotations

import pytest

from tests.marks import slow_except
from tests.mpi import run_ranks
from tests.torch_frontend.ranks import assert_passed, checks_in

FILE = "check_sampler.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", slow_except((1, 2, 3, 5), 3))
@pytest.mark.parametrize("check", checks_in(FILE))
def test_sampler(check: str, n: int) -> None:
    assert_passed(FILE, check, n)


PREAMBLE = """
import time
import torch
from torch.utils.data import DataLoader, TensorDataset
from tests.mpi import report
import hvd_gossip.torch as hvd
from hvd_gossip.torch.sampler import WorkSharingSampler

hvd.init(report=False, wait_timeout=20)
data = TensorDataset(torch.arange(600))
"""


def test_before_init_it_says_so() -> None:
    script = """
import pytest
from hvd_gossip.torch.sampler import WorkSharingSampler
with pytest.raises(ValueError, match="Horovod has not been initialized"):
    WorkSharingSampler(10)
"""
    run_ranks(1, script, launcher="none")


def test_a_rank_that_leaves_early_and_one_that_breaks_off_lose_nothing() -> None:
    """Rank 2 shuts down in epoch 0; rank 1 breaks off epoch 0 and goes on with epoch 1."""
    script = (
        PREAMBLE
        + """
sampler = WorkSharingSampler(data)
loader = DataLoader(data, batch_size=10, sampler=sampler, num_workers=1 if hvd.rank() == 0 else 0)
rank, epochs = hvd.rank(), [[], []]
for epoch in range(2):
    sampler.set_epoch(epoch)
    if rank == 0 and epoch == 0:
        hvd.barrier()  # the others have taken what they will: it does not take their share before
    for step, (batch,) in enumerate(loader):
        epochs[epoch] += batch.tolist()
        time.sleep(0.002)
        if step == 3 and epoch == 0 and rank > 0:
            hvd.barrier()
            break
    if rank == 2:
        break
report(epochs)
hvd.shutdown()
"""
    )
    results = run_ranks(3, script).in_rank_order()
    assert [len(results[rank][0]) for rank in (1, 2)] == [40, 40]
    assert results[2][1] == []
    for epoch in range(2):
        assert sorted(value for epochs in results for value in epochs[epoch]) == list(range(600))


def test_after_a_new_init_the_same_sampler_goes_on() -> None:
    script = (
        PREAMBLE
        + """
sampler, given = WorkSharingSampler(data), []
for _ in range(2):
    given.append(list(sampler))
    hvd.shutdown()
    hvd.init(report=False)
report(given)
hvd.shutdown()
"""
    )
    results = run_ranks(2, script).in_rank_order()
    for round_ in range(2):
        assert sorted(index for given in results for index in given[round_]) == list(range(600))


def test_ranks_whose_samplers_differ_are_told() -> None:
    script = (
        PREAMBLE
        + """
indices, problem = iter(WorkSharingSampler(data, seed=hvd.rank())), ""


def take(count):
    global problem
    try:
        for _ in zip(range(count), indices):
            pass
    except hvd.HorovodInternalError as error:
        problem = str(error)


take(1)
hvd.barrier()  # both have come to the pool, and nobody is through with it
take(600)
report(problem)
hvd.shutdown()
"""
    )
    for message in run_ranks(2, script).in_rank_order():
        assert "disagree about the shared pool 'sampler.0', epoch 0" in message
        assert "'seed': 0" in message
        assert "'seed': 1" in message
