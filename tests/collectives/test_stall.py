"""Names that only some ranks submit are reported and, if so set, given up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.collectives import Collectives, Request, Result, Sum
from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.simulated import DeadlockError, SimulatedWorld
from tests.collectives.cluster import Cluster


def make(size: int, reports: list[str], **options: Any) -> Cluster:
    return Cluster(size, world=SimulatedWorld(size), on_stall=reports.append, **options)


def test_report_names_tensor_age_ready_and_missing_ranks() -> None:
    """horovod#1890: ranks wait for each other, nobody knows for whom, in what, and since when."""
    reports: list[str] = []
    cluster = make(4, reports, stall_check_time=10.0)

    async def main(rank: int, collectives: Collectives) -> None:
        endpoint = cluster.endpoints[rank]
        await endpoint.sleep(5.0)
        names = ["grad.0", "grad.1"] if rank in (0, 1, 3) else []
        futures = [collectives.submit(Request(name, "allreduce", np.ones(3))) for name in names]
        await collectives.submit(Request("epoch", "barrier"))
        await endpoint.sleep(25.0)
        if rank == 2:
            futures = [collectives.submit(Request(name, "allreduce", np.ones(3))) for name in ("grad.0", "grad.1")]
        await all_of(futures)

    cluster.run(main)
    assert [report.splitlines()[1:] for report in reports] == [
        [
            f"  allreduce 'grad.0': {age} s [ready ranks: 0-1, 3] [missing ranks: 2]",
            f"  allreduce 'grad.1': {age} s [ready ranks: 0-1, 3] [missing ranks: 2]",
        ]
        for age in (10, 20)
    ]
    assert "reduced, gathered or broadcasted by subset of ranks and are waiting for remainder of ranks" in reports[0]
    assert "more than 10 seconds" in reports[0]


def test_an_incomplete_group_is_reported() -> None:
    reports: list[str] = []
    cluster = make(2, reports, stall_check_time=1.0)
    for collectives in cluster.collectives:
        collectives.submit(Request("a", "allreduce", np.ones(3), group="pair", group_size=2))
    cluster.world.run(max_time=1.5)
    assert reports[0].splitlines()[1] == "  allreduce 'a': 1 s [ready ranks: 0-1] [missing: the rest of group 'pair']"


@pytest.mark.parametrize("options", [{"stall_check_disable": True}, {"stall_check_time": 0.0}])
def test_no_report_if_it_is_switched_off(options: dict[str, Any]) -> None:
    reports: list[str] = []
    cluster = make(2, reports, stall_shutdown_time=0.0, **options)
    cluster.collectives[0].submit(Request("x", "barrier"))
    with pytest.raises(DeadlockError):  # not even a timer is left
        cluster.world.run()
    assert reports == []


def test_nothing_is_reported_in_time() -> None:
    reports: list[str] = []
    cluster = make(2, reports, stall_check_time=1.0)

    async def main(rank: int, collectives: Collectives) -> None:
        for _ in range(10):
            await cluster.endpoints[rank].sleep(0.7 * rank)
            await collectives.submit(Request("x", "allreduce", np.ones(2)))

    cluster.run(main)
    assert reports == []


def test_shutdown_time_fails_it_on_all_ranks_and_the_next_operation_works() -> None:
    reports: list[str] = []
    cluster = make(3, reports, stall_check_time=2.0, stall_shutdown_time=5.0)

    async def main(rank: int, collectives: Collectives) -> tuple[str, float]:
        await cluster.endpoints[rank].sleep(7.0 if rank == 1 else 0.0)
        with pytest.raises(WaitTimeoutError) as raised:
            await collectives.submit(Request("x", "allreduce", np.ones(3)))
        result: Result = await collectives.submit(Request("x", "allreduce", np.ones(3), Sum))
        return str(raised.value), result.output[0]

    text = (
        "allreduce 'x' was given up after 5 s: rank 1 did not submit it, ranks 0, 2 did "
        "(HOROVOD_STALL_SHUTDOWN_TIME_SECONDS)"
    )
    assert cluster.run(main) == [(text, 3.0)] * 3
    assert [report.splitlines()[1].split(" [")[0] for report in reports] == [
        "  allreduce 'x': 2 s",
        "  allreduce 'x': 4 s",
        "  allreduce 'x': 2 s",  # the next one, which waits from 5 s to 7 s
    ]


def test_the_new_kinds_are_reported_by_their_names() -> None:
    reports: list[str] = []
    cluster = make(3, reports, stall_check_time=1.0)

    async def main(rank: int, collectives: Collectives) -> None:
        number = await collectives.add_process_set([0, 2])
        await cluster.endpoints[rank].sleep(1.5 if rank == 2 else 0.0)
        futures = [collectives.submit(Request(kind, kind, np.ones(3))) for kind in ("alltoall", "reducescatter")]
        if rank != 1:
            futures.append(collectives.submit(Request("set", "barrier", process_set=number)))
        await all_of(futures)
        await collectives.remove_process_set(number)

    cluster.run(main)
    assert sorted(line.split(" [")[0].strip() for line in reports[0].splitlines()[1:]) == [
        "alltoall 'alltoall': 1 s",
        "barrier 'set': 1 s",
        "reducescatter 'reducescatter': 1 s",
    ]
    assert reports[0].count("[ready ranks: 0] [missing ranks: 2]") == 1
    assert reports[0].count("[ready ranks: 0-1] [missing ranks: 2]") == 2


def test_a_join_waits_patiently_as_long_as_the_others_work() -> None:
    """Ten seconds of steps are no stall of the join, nor is it given up; a second and a half without any is one."""
    reports: list[str] = []
    cluster = make(3, reports, stall_check_time=1.0, stall_shutdown_time=3.0)

    async def main(rank: int, collectives: Collectives) -> int:
        if rank:
            for _ in range(20):
                await cluster.endpoints[rank].sleep(0.5)
                await collectives.submit(Request("x", "allreduce", np.ones(3)))
            assert reports == []
            await cluster.endpoints[rank].sleep(1.5)
        return (await collectives.submit(Request("join", "join"))).last_joined

    assert set(cluster.run(main)) <= {1, 2}
    assert [report.splitlines()[1].strip() for report in reports] == [
        "join 'join': 1 s [ready ranks: 0] [missing ranks: 1-2]"
    ]


def test_a_joined_rank_is_not_reported_as_missing() -> None:
    reports: list[str] = []
    cluster = make(3, reports, stall_check_time=1.0)

    async def main(rank: int, collectives: Collectives) -> None:
        if rank:
            await cluster.endpoints[rank].sleep(1.5 * rank)
            await collectives.submit(Request("x", "allreduce", np.ones(3)))
        await collectives.submit(Request("join", "join"))

    cluster.run(main)
    assert any("allreduce 'x': 1 s [ready ranks: 1] [missing ranks: 2]" in report for report in reports)


def test_shutdown_time_without_reports() -> None:
    cluster = make(2, [], stall_check_time=0.0, stall_shutdown_time=5.0)
    future = cluster.collectives[0].submit(Request("x", "barrier"))
    with pytest.raises(WaitTimeoutError, match="rank 1 did not submit it"):
        cluster.world.run([future])
    assert cluster.world.now == pytest.approx(5.0, abs=0.01)


def test_a_stalled_operation_fails_when_the_missing_rank_departs() -> None:
    reports: list[str] = []
    cluster = make(2, reports, stall_check_time=1.0)
    future = cluster.collectives[0].submit(Request("x", "barrier"))
    cluster.world.run(max_time=1.5)
    cluster.world.run([cluster.endpoints[1].spawn(cluster.collectives[1].depart())])
    with pytest.raises(HorovodInternalError, match="rank 1 has shut down"):
        future.result()
    assert len(reports) == 1


def test_a_transfer_that_lasts_too_long_fails_everywhere_and_names_who_was_waited_for() -> None:
    """Rank 2 is silent from the middle of a transfer on."""
    world = SimulatedWorld(3, detection_delay=1e6)
    cluster = Cluster(3, world=world, wait_timeout=3.0)
    futures = [c.submit(Request("x", "allreduce", np.ones(10_000_000, np.float32))) for c in cluster.collectives]
    world.kill(2, at=1e-3)
    world.run(max_time=10.0)
    texts = sorted(str(futures[rank].error()) for rank in (0, 1))
    assert (
        "rank 0: allreduce 'x' among ranks [0, 1, 2] was given up after 3 s (wait_timeout) of " in texts[0] + texts[1]
    )
    assert "from rank 2" in texts[0] + texts[1]
    assert all(isinstance(futures[rank].error(), HorovodInternalError) for rank in (0, 1))
