"""Ranks leave at any moment: the others' operations end, one way or the other, and live_only ones go on without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.collectives import Average, Collectives, Request, Result, Sum
from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import Cluster, adversarial_world

Outcome = Result | str


async def outcome(collectives: Collectives, request: Request) -> Outcome:
    """The operation's result, or the text of its error."""
    try:
        return await collectives.submit(request)
    except HorovodInternalError as error:
        return str(error)


@settings(max_examples=60)
@given(
    size=st.integers(2, 8),
    seed=st.integers(0, 10_000),
    leaving=st.lists(st.floats(0, 2e-3), min_size=8, max_size=8),
    eager_bytes=st.sampled_from([0, 128 << 10]),
    cache_capacity=st.sampled_from([0, 2, 1024]),
    cycle_time=st.sampled_from([0.0, 1.0]),
)
def test_leaving_at_any_moment(size: int, seed: int, leaving: list[float], **options: Any) -> None:
    """Every rank averages among the live ones until it leaves; what it leaves behind is consistent."""
    cluster = Cluster(size, seed, **options)
    world = cluster.world

    async def main(rank: int, collectives: Collectives) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}

        async def work() -> None:
            for round_ in range(1000):
                if world.now >= leaving[rank]:
                    return
                arrays = [np.full(40, rank, np.float64), np.full(3, rank, np.float32)]
                names = [f"round {round_}.{i}" for i in range(2)]
                requests = [Request(n, "allreduce", a, live_only=True) for n, a in zip(names, arrays, strict=True)]
                for request in requests:
                    outcomes[request.name] = await outcome(collectives, request)

        await work()
        await collectives.depart()
        return outcomes

    results = cluster.run(main)
    world.run()
    for name in {name for outcomes in results for name in outcomes}:
        by_rank = {rank: outcomes[name] for rank, outcomes in enumerate(results) if name in outcomes}
        for rank, result in by_rank.items():
            assert isinstance(result, Result), result
            assert rank in result.ranks
            assert all(by_rank[peer].ranks == result.ranks for peer in result.ranks)
            np.testing.assert_allclose(result.output, np.mean(result.ranks), rtol=1e-6)


@settings(max_examples=100)
@given(
    size=st.integers(2, 8),
    seed=st.integers(0, 10_000),
    data=st.data(),
    length=st.sampled_from([0, 3, 500]),
    eager_bytes=st.sampled_from([0, 128 << 10]),
)
def test_leaving_without_submitting_fails_the_others(
    size: int, seed: int, data: st.DataObject, length: int, eager_bytes: int
) -> None:
    """Some ranks leave before, some after having submitted: the operation fails on all that still wait, by name."""
    quitters = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=size - 1))
    cluster = Cluster(size, seed, eager_bytes=eager_bytes)
    done: set[int] = set()

    async def main(rank: int, collectives: Collectives) -> Outcome | None:
        stream, endpoint = np.random.default_rng((seed, rank)), cluster.endpoints[rank]
        await endpoint.sleep(stream.exponential(1e-4))
        result: Outcome | None = None
        if rank not in quitters:
            result = await outcome(collectives, Request("x", "allreduce", np.ones(length)))
            done.add(rank)
            again = await outcome(collectives, Request("y", "allreduce", np.ones(2)))
            assert isinstance(again, str)
            live = await outcome(collectives, Request("z", "barrier", live_only=True))
            assert isinstance(live, Result)
            assert set(range(size)) - quitters <= set(live.ranks)
        await collectives.depart()
        return result

    results = cluster.run(main)
    cluster.world.run()
    for rank in set(range(size)) - quitters:
        assert isinstance(results[rank], str)
        assert results[rank].startswith("allreduce 'x' cannot be done: rank")
        named = [
            int(word.strip(",")) for word in results[rank].split(":")[1].split(" ha")[0].replace("-", " ").split()[1:]
        ]
        assert set(named) & quitters


def test_texts_name_who_left_and_who_waits() -> None:
    cluster = Cluster(4)

    async def main(rank: int, collectives: Collectives) -> str:
        if rank == 2:
            await collectives.depart()
            return ""
        await cluster.endpoints[rank].sleep(0.1)
        result = await outcome(collectives, Request("grad", "allgather", np.ones(3)))
        assert isinstance(result, str)
        return result

    texts = cluster.run(main)
    assert texts[0] == "allgather 'grad' cannot be done: rank 2 has shut down. It was submitted by rank 0."
    assert texts[3] == "allgather 'grad' cannot be done: rank 2 has shut down. It was submitted by rank 3."


def test_what_the_leaver_submitted_fails_on_it() -> None:
    cluster = Cluster(2)

    async def main(rank: int, collectives: Collectives) -> str:
        if rank == 0:
            await cluster.endpoints[0].sleep(1.0)
            return ""
        future = collectives.submit(Request("x", "barrier"))
        await cluster.endpoints[1].sleep(0.1)
        await collectives.depart()
        return str(future.error())

    assert cluster.run(main)[1] == "barrier 'x' was not carried out: rank 1 has shut down"


def test_transfers_under_way_are_finished_before_the_departure_is() -> None:
    cluster = Cluster(3, seed=1)

    async def main(rank: int, collectives: Collectives) -> Any:
        future = collectives.submit(Request("x", "allreduce", np.full(200_000, rank), Sum))
        while not collectives._client._executing:
            await cluster.endpoints[rank].sleep(1e-6)
        await collectives.depart()
        return future.result().output[0]

    assert cluster.run(main) == [3, 3, 3]
    cluster.world.run()


def test_the_coordinators_role_is_handed_on_and_on() -> None:
    """Ranks 0, 1, 2... leave one after the other while the others wait for operations; ids stay in step."""
    cluster = Cluster(5, seed=2, cache_capacity=3)

    async def main(rank: int, collectives: Collectives) -> list[tuple[int, ...]]:
        seen = []
        for round_ in range(5):
            if rank == round_:
                break
            names = [f"tensor {i}" for i in range(4)]
            results = await all_of(
                collectives.submit(Request(name, "allreduce", np.full(5, rank), Average, live_only=True))
                for name in names
            )
            assert all((result.output == sum(result.ranks) // len(result.ranks)).all() for result in results)
            seen.append(results[0].ranks)
        await collectives.depart()
        return seen

    results = cluster.run(main)
    cluster.world.run()
    assert results[4] == [(1, 2, 3, 4), (2, 3, 4), (3, 4), (4,)]


def test_all_leave_at_once() -> None:
    for size in (1, 2, 3, 16):
        cluster = Cluster(size, seed=size)
        cluster.leave()
        assert all(endpoint.open_tasks() == [] for endpoint in cluster.endpoints)


def test_departing_twice_does_nothing() -> None:
    cluster = Cluster(2)
    cluster.leave()
    cluster.leave()


def test_departure_times_out_and_names_who_did_not_answer() -> None:
    world = SimulatedWorld(3, detection_delay=1e6)
    cluster = Cluster(3, world=world)
    world.kill(2, at=0.0)
    task = world.endpoints[1].spawn(cluster.collectives[1].depart(timeout=5.0))
    with pytest.raises(WaitTimeoutError, match=r"rank 1 could not shut down within 5 s: no answer from rank 2"):
        world.run([task])
    assert world.now == pytest.approx(5.0)


def test_departure_times_out_when_the_coordinator_is_silent() -> None:
    endpoints = adversarial_world(2, 0).endpoints
    lonely = Collectives(endpoints[1])
    lonely.start()
    task = endpoints[1].spawn(lonely.depart(timeout=2.0))
    with pytest.raises(WaitTimeoutError, match="the coordinator, rank 0, did not answer"):
        endpoints[1]._world.run([task])
