"""Transfers are started in one order, a few at a time, and end well or not without stopping the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hvd_gossip.collectives import Request, Sum
from hvd_gossip.collectives.client import Pending
from hvd_gossip.collectives.executor import MAX_RUNNING, Executor, Operation, TransferOptions
from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.transport.endpoint import COLLECTIVE_BASE, COLLECTIVE_COUNT
from hvd_gossip.transport.simulated import SimulatedWorld


class Bench:
    """Executors of all ranks of a world, and what they called back."""

    def __init__(self, size: int, wait_timeout: float = 100.0) -> None:
        self.world = SimulatedWorld(size)
        self.ended: list[tuple[int, int]] = []
        self.failed: list[tuple[int, int, str]] = []
        self.executors = [self._executor(rank, wait_timeout) for rank in range(size)]

    def _executor(self, rank: int, wait_timeout: float) -> Executor:
        return Executor(
            self.world.endpoints[rank],
            TransferOptions(wait_timeout, chunk_bytes=1024),
            on_end=lambda operation: self.ended.append((rank, operation.sequence)),
            on_failure=lambda operation, error: self.failed.append((rank, operation.sequence, str(error))),
        )

    def submit(self, rank: int, sequence: int, *requests: Request, sizes: tuple[int, ...] = ()) -> list[Any]:
        parts = [Pending(request, 0.0) for request in requests]
        self.executors[rank].submit(Operation(sequence, parts, tuple(range(self.world.size)), sizes, self.world.size))
        return [part.future for part in parts]


def reduce(name: str, length: int = 1000) -> Request:
    return Request(name, "allreduce", np.ones(length), Sum)


def test_a_few_at_a_time_in_order_even_if_ranks_get_them_at_different_times() -> None:
    bench = Bench(2)
    futures = [bench.submit(0, sequence, reduce(str(sequence)))[0] for sequence in range(10)]
    assert len(bench.executors[0]._running) == MAX_RUNNING
    bench.world.call_at(1.0, lambda: futures.extend(bench.submit(1, s, reduce(str(s)))[0] for s in range(10)))
    bench.world.run(lambda: len(futures) == 20 and all(future.done() for future in futures))
    assert all(future.result().output[0] == 2 for future in futures)
    assert sorted(bench.ended) == [(rank, sequence) for rank in range(2) for sequence in range(10)]
    assert bench.executors[0].idle


def test_every_kind() -> None:
    bench = Bench(2)
    outputs = []
    for rank in range(2):
        output = np.empty((4, 3), np.int64)
        outputs.append(output)
        mine = np.full((4, 3), rank)
        futures = bench.submit(rank, 0, Request("b", "broadcast", mine, root_rank=1, output=output))
        futures += bench.submit(rank, 1, Request("g", "allgather", mine[: rank + 1]), sizes=(1, 2))
    bench.world.run(futures)
    bench.world.run()
    assert all((output == 1).all() for output in outputs)
    assert futures[1].result().output[:, 0].tolist() == [0, 1, 1]


def test_channels_come_round() -> None:
    operation = Operation(COLLECTIVE_COUNT + 5, [], (0,), (), 1)
    assert operation.channel == COLLECTIVE_BASE + 5


def test_a_failure_fails_its_requests_only_and_is_reported() -> None:
    """The second member of a fused transfer lies about its type: the transfer fails, the next one works."""
    bench = Bench(1)
    broken = reduce("broken")
    broken.output = SimpleNamespace(reshape=None)  # type: ignore[assignment]
    first, second = bench.submit(0, 0, reduce("fine"), broken)
    (third,) = bench.submit(0, 1, reduce("third"))
    bench.world.run()
    assert isinstance(first.error(), HorovodInternalError)
    assert str(first.error()).startswith("rank 0: allreduce 'fine' and 1 fused with it failed: ")
    assert second.error() is first.error()
    assert third.result().output[0] == 1
    assert [entry[:2] for entry in bench.failed] == [(0, 0)]
    assert bench.ended == [(0, 0), (0, 1)]


@pytest.mark.parametrize("sequence", [0, MAX_RUNNING + 1], ids=["running", "waiting"])
@pytest.mark.parametrize("stepped", [False, True])
def test_abort(sequence: int, stepped: bool) -> None:
    bench = Bench(2)
    futures = [bench.submit(0, number, reduce(str(number)))[0] for number in range(MAX_RUNNING + 2)]
    if stepped:
        bench.world.run(max_time=1.0) if bench.world._heap else bench.world.scheduler.run_ready()
    bench.executors[0].abort(sequence, HorovodInternalError("given up"))
    with pytest.raises(HorovodInternalError, match="given up"):
        futures[sequence].result()
    assert bench.ended == [(0, sequence)]
    assert bench.failed == []
    bench.executors[0].abort(sequence, HorovodInternalError("again"))
    bench.executors[0].abort_all(HorovodInternalError("all"))
    assert all(future.done() for future in futures)
    assert bench.executors[0].idle
    assert all(task.done() for task in bench.world.endpoints[0].open_tasks())


def test_a_transfer_lasts_no_longer_than_the_limit() -> None:
    bench = Bench(2, wait_timeout=5.0)
    assert bench.executors[0].next_due() is None
    (future,) = bench.submit(0, 0, reduce("x"))
    assert bench.executors[0].next_due() == 5.0
    bench.world.scheduler.run_ready()
    bench.executors[0].expire(4.9)
    assert not future.done()
    bench.executors[0].expire(5.0)
    with pytest.raises(
        WaitTimeoutError, match=r"rank 0: allreduce 'x' among ranks \[0, 1\] was given up after 5 s .*rank 1"
    ):
        future.result()
    assert bench.failed[0][:2] == (0, 0)
