"""Join on real processes: uneven data trains with every algorithm."""

from __future__ import annotations

import pytest

from tests.marks import slow_except
from tests.mpi import run_ranks

GOSSIP = ["dpsgd", "adpsgd", "sgp"]
PREAMBLE = """
import time
import numpy as np
from hvd_gossip import runtime
from hvd_gossip.collectives import Request, Sum
from hvd_gossip.errors import HorovodInternalError
from tests.mpi import report

def replica(rt, length=1000):
    return np.random.default_rng(rt.world.rank).standard_normal(length)

def total(rt, x, name):
    out = np.empty(x.shape, np.float64)
    rt.submit(Request(name=name, kind="allreduce", op=Sum, array=x.astype(np.float64), output=out)).wait()
    return out
"""


@pytest.mark.parametrize("ranks", slow_except(range(1, 6), 4))
@pytest.mark.parametrize("algorithm", GOSSIP)
def test_epochs_of_different_lengths(algorithm: str, ranks: int) -> None:
    """Horovod's #832: each epoch somebody has most of the data; the mean over all stands still, joined or not."""
    script = (
        PREAMBLE
        + f"""
rt = runtime.init(algorithm={algorithm!r}, wait_timeout=30)
rank, size = rt.world.rank, rt.world.size
x = replica(rt)
before = total(rt, x, "before") / size
worker = rt.attach([x], chunk_bytes=4096)
lasts = []
for epoch in range(3):
    for _ in range(2 + 5 * ((rank + epoch) % size)):
        time.sleep(0.001)
        worker.step(lambda: None)
    lasts.append(rt.join())
    with worker.consensus():
        inside = float(abs(x - before).max())
worker.pause()
chunks = worker.replica.chunks
weights = worker.state_dict().get("weights", np.ones(len(chunks)))  # push-sum's
mass = np.concatenate([chunk.x * weight for chunk, weight in zip(chunks, weights)])
after = total(rt, mass, "after") / size
report([lasts, inside, float(abs(after - before).max())])
runtime.shutdown()
"""
    )
    results = run_ranks(ranks, script).in_rank_order()
    for lasts, inside, drift in results:
        assert lasts == results[0][0]
        assert all(0 <= last < ranks for last in lasts)
        assert inside < 1e-12
        assert drift < 1e-12


@pytest.mark.parametrize("algorithm", GOSSIP)
def test_nobody_waits_for_a_rank_without_data_and_it_is_the_first_to_join(algorithm: str) -> None:
    script = (
        PREAMBLE
        + f"""
rt = runtime.init(algorithm={algorithm!r}, wait_timeout=30)
worker = rt.attach([replica(rt)])
for epoch in range(2):
    for _ in range(0 if rt.world.rank == 1 else 20):
        time.sleep(0.002)
        worker.step(lambda: None)
    if rt.world.rank != 1:
        total(rt, np.ones(1), f"joined{{epoch}}")  # which takes until rank 1 has joined
    last = rt.join()
    report(last)
runtime.shutdown()
"""
    )
    results = run_ranks(3, script).in_rank_order()
    assert results[0] in (0, 2)
    assert results == [results[0]] * 3


def test_exact_averages_within_an_epoch_go_on_without_who_has_joined() -> None:
    """global_average_every counts steps from the join; the consensus is that of the ranks that have data."""
    script = (
        PREAMBLE
        + """
rt = runtime.init(algorithm="dpsgd", global_average_every=3, wait_timeout=30)
rank = rt.world.rank
x = np.full(10, float(rank))
worker = rt.attach([x])
for epoch in range(3):
    for step in range(0 if rank == epoch else 7):
        worker.step(lambda: None)
    distance = worker.consensus_distance() if rank != epoch else None
    rt.join()
with worker.consensus():
    mean = x.copy()
report([distance, float(abs(mean - 1).max())])
runtime.shutdown()
"""
    )
    results = run_ranks(3, script).in_rank_order()
    assert all(error < 1e-12 for _, error in results)
    assert [distance is None for distance, _ in results] == [False, False, True]


def test_several_optimizers_join_at_once() -> None:
    """One synchronous, one asynchronous, and one whose ranks have let go of it at different times."""
    script = (
        PREAMBLE
        + """
rt = runtime.init(algorithm="adpsgd", wait_timeout=30)
rank = rt.world.rank
workers = [rt.attach([replica(rt)]), rt.attach([replica(rt)], algorithm="dpsgd"), rt.attach([replica(rt)], algorithm="sgp")]
for epoch in range(3):
    for _ in range(3 * (1 + (rank + epoch) % 3)):
        for worker in workers:
            worker.step(lambda: None)
    if epoch == rank:
        rt.abandon(workers.pop())
    rt.join()
for worker in workers:
    worker.step(lambda: None)
report([worker.algorithm.phase for worker in workers])
runtime.shutdown()
"""
    )
    assert run_ranks(3, script).in_rank_order() == [[3, 3]] * 3


def test_a_rank_may_depart_while_others_have_joined() -> None:
    script = (
        PREAMBLE
        + """
rt = runtime.init(algorithm="dpsgd", wait_timeout=30)
rank = rt.world.rank
worker = rt.attach([replica(rt)])
for _ in range(2 * rank):
    worker.step(lambda: None)
if rank == 2:
    report("left")
    runtime.shutdown()
else:
    result = rt.join_all()
    worker.step(lambda: None)
    report([list(result.ranks), result.last_joined])
    runtime.shutdown()
"""
    )
    results = run_ranks(4, script).in_rank_order()
    assert results.pop(2) == "left"
    assert results == [results[0]] * 3
    assert set(results[0][0]) in ({0, 1, 3}, {0, 1, 2, 3})
    assert results[0][1] in (0, 1, 3)


def test_attaching_while_a_rank_has_joined_is_an_error_and_training_goes_on() -> None:
    script = (
        PREAMBLE
        + """
rt = runtime.init(algorithm="sgp", wait_timeout=30)
worker = rt.attach([replica(rt)])
if rt.world.rank != 1:
    worker.step(lambda: None)
    try:
        rt.attach([replica(rt)])
        said = "attached"
    except HorovodInternalError as error:
        said = str(error)
else:
    said = ""
rt.join()
second = rt.attach([replica(rt)])
for one in (worker, second):
    one.step(lambda: None)
report(said)
runtime.shutdown()
"""
    )
    first, joined, third = run_ranks(3, script).in_rank_order()
    assert joined == ""
    for said in (first, third):
        assert "not supported with Join" in said
        assert "1" in said


def test_allreduce_s_join_is_the_collectives_alone() -> None:
    """A joined rank adds zeros, and an average divides by all ranks (Horovod's rule)."""
    script = (
        PREAMBLE
        + """
rt = runtime.init()
rank = rt.world.rank
sums = []
for step in range(1 + rank):
    sums.append(total(rt, np.ones(2), f"step{step}").tolist()[0])
last = rt.join()
report([sums, last, total(rt, np.ones(1), "after").tolist()])
runtime.shutdown()
"""
    )
    results = run_ranks(3, script).in_rank_order()
    assert [sums for sums, _, _ in results] == [[3.0], [3.0, 2.0], [3.0, 2.0, 1.0]]
    assert [after for _, _, after in results] == [[3.0]] * 3
    assert len({last for _, last, _ in results}) == 1
