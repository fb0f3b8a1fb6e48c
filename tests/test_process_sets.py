"""Process sets, join and the collectives of rows on real processes, through the functions that every framework shares."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hvd_gossip.process_sets import disagreement
from tests.mpi import run_ranks

PREAMBLE = """
import numpy as np
from hvd_gossip import basics as hvd
from hvd_gossip import runtime
from hvd_gossip.collectives import Adasum, Average, Request, Sum
from hvd_gossip.objects import allgather_object, broadcast_object
from tests.mpi import report

def submit(name, kind, array=None, **more):
    return runtime.current().submit(Request(name, kind, array, **more))

def error_of(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"
"""

STATIC = """
import sys
size = int(sys.argv[1])
low, most, clone = hvd.ProcessSet([0]), hvd.ProcessSet(range(max(1, size - 1))), hvd.ProcessSet([0])
hvd.init(process_sets=[low, most, clone] if size > 2 else [low])
rank, size = hvd.rank(), hvd.size()
out = {"sets": [str(low), str(most), str(clone)], "late": error_of(hvd.add_process_set, [size - 1])}
own = most if size > 2 and most.included() else hvd.global_process_set
out["place"] = [own.rank(), own.size(), low.included(), most.size()]
out["foreign"] = error_of(hvd.process_set_id, low)
number = hvd.process_set_id(own)

# large and small, in the set and among all, at once
handles = []
for length in (10, 200_000):
    for chosen in sorted({0, number}):
        handles.append(submit(f"x{length}", "allreduce", np.full(length, rank + 1.0), op=Sum, process_set=chosen))
out["sums"] = [[float(result.output[0]), float(result.output[-1]), *result.ranks] for result in (h.wait() for h in handles)]

rows = np.arange(size * (size + 1) // 2) + 1000 * rank
for repeat, times in (("small", 1), ("large", 20_000)):
    array = np.repeat(rows, times)
    splits = tuple(times * (other + 1) for other in range(size))
    result = submit(f"alltoall {repeat}", "alltoall", array, splits=splits).wait()
    out[f"alltoall {repeat}"] = [result.output[::times].tolist(), [size // times for size in result.sizes]]
    result = submit(f"scatter {repeat}", "reducescatter", np.repeat(np.arange(7.0), times), op=Average).wait()
    out[f"scatter {repeat}"] = [result.output.size, float(result.output[0]) if result.output.size else None, result.sizes[rank]]
if size & (size - 1) == 0:
    for length in (10, 200_000):
        result = submit("adasum", "allreduce", np.full(length, rank + 1.0, np.float32), op=Adasum).wait()
        out[f"adasum {length}"] = [float(result.output[0]), float(result.output[-1])]
for chosen in [own] * bool(number) + [hvd.global_process_set]:
    gathered = allgather_object({"rank": rank}, "who", process_set=chosen)
    out.setdefault("objects", []).append([gathered, broadcast_object(rank, 0, "root", process_set=chosen)])

# uneven data, twice
out["join"] = []
for epoch in range(2):
    totals = []
    for step in range(1 + 2 * rank):
        small = submit("small", "allreduce", np.ones(3), op=Sum)
        large = submit("large", "allreduce", np.ones(100_000), op=Average)
        totals.append([float(small.wait().output[0]), round(float(large.wait().output[0]) * size, 6)])
    out["join"].append([totals, submit("join", "join").wait().last_joined])
report(out)
hvd.shutdown()
"""


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5])
def test_static_sets_rows_adasum_and_join(ranks: int) -> None:
    results = run_ranks(ranks, PREAMBLE + STATIC, [str(ranks)]).in_rank_order()
    assert len(results) == ranks
    everybody, most = list(range(ranks)), list(range(max(1, ranks - 1)))
    for rank, out in enumerate(results):
        check_sets(out, rank, ranks, most)
        own = most if ranks > 2 and rank in most else everybody
        wanted = [
            [sum(one + 1.0 for one in some)] * 2 + some for some in ([everybody, most] if own is most else [everybody])
        ]
        assert out["sums"] == wanted * 2
        for repeat, times in (("small", 1), ("large", 20_000)):
            start = rank * (rank + 1) // 2
            column = [1000 * other + start + row for other in everybody for row in range(rank + 1)]
            assert out[f"alltoall {repeat}"] == [column, [rank + 1] * ranks]
            share, more = divmod(7 * times, ranks)
            assert out[f"scatter {repeat}"][::2] == [share + (rank < more)] * 2
        if f"adasum {10}" in out:
            assert out["adasum 10"] == pytest.approx([parallel(ranks)] * 2)
            assert out["adasum 200000"] == pytest.approx([parallel(ranks)] * 2)
        assert out["objects"] == [[[{"rank": one} for one in some], 0] for some in [most] * (own is most) + [everybody]]
        for totals, last in out["join"]:
            assert last == ranks - 1
            present = [sum(1 + 2 * other > step for other in everybody) for step in range(1 + 2 * rank)]
            assert totals == [[float(count)] * 2 for count in present]


def parallel(ranks: int) -> float:
    """The adaptive sum of parallel vectors, of the lengths 1 to `ranks`: averages of averages."""
    return (ranks + 1) / 2


def check_sets(out: dict[str, Any], rank: int, ranks: int, most: list[int]) -> None:
    if ranks == 1:
        assert out["sets"][0] == "ProcessSet(process_set_id=None, ranks=[0], mpi_comm=None)"  # it is the global one
        assert out["foreign"] == "ValueError: Process set does not exist or has not been registered."
        assert out["place"] == [0, 1, True, None]
        return
    numbers = [1, 2, None] if ranks > 2 else [1, None, None]
    sets = [[0], most, [0]]
    assert out["sets"] == [
        f"ProcessSet(process_set_id={number}, ranks={some}, mpi_comm=None)"
        for number, some in zip(numbers, sets, strict=True)
    ]
    assert out["late"] == (
        "ValueError: Set HOROVOD_DYNAMIC_PROCESS_SETS=1 to allow adding process sets after Horovod initialization."
    )
    size = ranks - 1 if ranks > 2 and rank < ranks - 1 else ranks
    assert out["place"] == [rank, size, rank == 0, ranks - 1 if ranks > 2 else None]
    foreign = f"ValueError: Rank {rank} is not a member of the provided process set {out['sets'][0]}."
    assert out["foreign"] == ("no error" if rank == 0 else foreign)


DYNAMIC = """
import sys
hvd.init(process_sets=sys.argv[1] or None)
rank = hvd.rank()
even, odd = hvd.add_process_set([0, 2]), hvd.add_process_set(hvd.ProcessSet([1]))
mine = odd if rank == 1 else even
out = [[str(even), str(odd)], mine.rank(), error_of((even if rank == 1 else odd).rank)]
result = submit("x", "allgather", np.full(2, rank), process_set=hvd.process_set_id(mine)).wait()
out.append(result.output.tolist())
out.append(error_of(hvd.add_process_set, [0, 2]))
out.append(error_of(hvd.add_process_set, [0, 1] if rank else [1, 2]))
out.append([hvd.remove_process_set(even), hvd.remove_process_set(even), hvd.remove_process_set(hvd.global_process_set)])
out.append(error_of(hvd.process_set_id, even))
again = hvd.add_process_set([0, 2])
out.append(again.process_set_id)
report(out)
hvd.shutdown()
"""


@pytest.mark.parametrize(("argument", "variable"), [("dynamic", ""), ("", "1")])
def test_dynamic_sets(argument: str, variable: str) -> None:
    environment = {"HOROVOD_DYNAMIC_PROCESS_SETS": variable}
    for rank, out in enumerate(run_ranks(3, PREAMBLE + DYNAMIC, [argument], env=environment).in_rank_order()):
        sets, place, foreign, gathered, duplicate, mismatch, removed, unknown, again = out
        assert sets == [
            "ProcessSet(process_set_id=1, ranks=[0, 2], mpi_comm=None)",
            "ProcessSet(process_set_id=2, ranks=[1], mpi_comm=None)",
        ]
        assert place == rank // 2
        assert foreign == "ValueError: Process is not part of provided process set."
        assert gathered == ([1, 1] if rank == 1 else [0, 0, 2, 2])
        assert duplicate == "ValueError: Attempted to add a duplicate process set: [0, 2]"
        assert "Mismatched process sets for 'process_set': rank 0 submitted [1, 2], but ranks 1-2" in mismatch
        assert removed == [True, False, False]
        assert unknown == "ValueError: Process set does not exist or has not been registered."
        assert again == 3


COMMUNICATORS = """
from mpi4py import MPI
comm = MPI.COMM_WORLD
split = hvd.ProcessSet(comm.Split(color=comm.rank % 2, key=comm.rank))
before = [split.ranks, split.included(), split.size()]
hvd.init(comm, process_sets=[split])
result = submit("x", "allreduce", np.full(3, comm.rank), op=Sum, process_set=hvd.process_set_id(split)).wait()
report([before, split.process_set_id, split.ranks, result.output.tolist(), "Intracomm" in str(split)])
hvd.shutdown()
"""


def test_sets_of_communicators_that_split_the_ranks() -> None:
    results = run_ranks(4, PREAMBLE + COMMUNICATORS).in_rank_order()
    even, odd = [[None, None, None], 1, [0, 2], [2] * 3, True], [[None, None, None], 2, [1, 3], [4] * 3, True]
    assert results == [even, odd, even, odd]


DIFFERENT = """
from mpi4py import MPI
rank = MPI.COMM_WORLD.rank
error = error_of(hvd.init, None, [hvd.ProcessSet([0, 1] if rank else [0])])
initialized = hvd.is_initialized()
hvd.init()
report([error, initialized, float(submit("x", "allreduce", np.ones(2), op=Sum).wait().output[0])])
hvd.shutdown()
"""


def test_different_static_sets_are_an_error_on_all_ranks_and_init_may_be_tried_again() -> None:
    for rank, (error, initialized, total) in enumerate(run_ranks(2, PREAMBLE + DIFFERENT).in_rank_order()):
        assert error == f"ValueError: rank {rank}: rank 1 gave the process set [0, 1] where rank 0 gave [0]"
        assert not initialized
        assert total == 2


RANKS, OF_COMM = False, True


@pytest.mark.parametrize(
    ("everybody", "text"),
    [
        ([(False, []), (False, [])], ""),
        ([(True, []), (True, [])], ""),
        ([(False, [(RANKS, (0,))])] * 2, ""),
        ([(False, [(OF_COMM, (0,))]), (False, [(OF_COMM, (1,))])], ""),
        ([(True, []), (False, [])], "dynamic on rank 0 only"),
        ([(False, []), (False, [(RANKS, (0,))])], "rank 1 gave 1 process sets, rank 0 gave 0"),
        ([(False, [(RANKS, (0,))]), (False, [])], "rank 1 gave 0 process sets, rank 0 gave 1"),
        (
            [(False, [(RANKS, (0,))]), (False, [(RANKS, (1,))])],
            r"rank 1 gave the process set \[1\] where rank 0 gave \[0\]",
        ),
        ([(False, [(RANKS, (0, 2))])] * 2, r"rank 0 gave the process set \[0, 2\], but the ranks are 0 to 1"),
        ([(False, [(RANKS, (1, 1))])] * 2, "each once"),
        ([(False, [(RANKS, ())])] * 2, r"rank 0 gave the process set \[\]"),
    ],
)
def test_what_ranks_may_give_to_init(everybody: list[Any], text: str) -> None:
    found = disagreement(everybody, 2)
    assert bool(found) == bool(text)
    assert re.search(text, found)
