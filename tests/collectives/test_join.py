"""join: ranks that have run out of data count as zeros until all have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.collectives import Adasum, Average, Collectives, Max, Min, Product, ReduceOp, Request, Sum
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import Cluster

SIZES = pytest.mark.parametrize("eager_bytes", [0, 1 << 20], ids=["large", "small"])


async def join(collectives: Collectives, process_set: int = 0) -> int:
    return (await collectives.submit(Request("join", "join", process_set=process_set))).last_joined


@settings(max_examples=80)
@given(
    steps=st.lists(st.integers(0, 5), min_size=1, max_size=16),
    tensors=st.integers(1, 3),
    op=st.sampled_from([Average, Sum]),
    dtype=st.sampled_from([np.float16, np.float32, np.int64]),
    live_only=st.booleans(),
    seed=st.integers(0, 10_000),
    eager_bytes=st.sampled_from([0, 1 << 20]),
    cache_capacity=st.sampled_from([0, 1, 1024]),
)
def test_uneven_data(
    steps: list[int],
    tensors: int,
    op: ReduceOp,
    dtype: type,
    live_only: bool,
    seed: int,
    eager_bytes: int,
    cache_capacity: int,
) -> None:
    """Every rank has another number of steps, twice; names repeat, so that cached and fused answers are among them."""
    size = len(steps)
    cluster = Cluster(size, seed, eager_bytes=eager_bytes, cache_capacity=cache_capacity)

    async def main(rank: int, collectives: Collectives) -> tuple[list[list[float]], list[int]]:
        endpoint = cluster.endpoints[rank]
        sums, last = [], []
        for _ in range(2):
            for step in range(steps[rank]):
                await endpoint.sleep(float(endpoint.rng.exponential(1e-4)))
                futures = [
                    collectives.submit(
                        Request(f"x{i}", "allreduce", np.full(5, 16 * (step + 1), dtype), op, live_only=live_only)
                    )
                    for i in range(tensors)
                ]
                sums.append([float((await future).output[0]) for future in futures])
            last.append(await join(collectives))
        return sums, last

    results = cluster.run(main)
    for rank, (sums, last) in enumerate(results):
        assert last == results[0][1]
        for index, values in enumerate(sums):
            step = index % steps[rank]
            present = sum(count > step for count in steps)
            total = 16 * (step + 1) * present
            count = present if live_only else size
            wanted = total if op is Sum else total // count if dtype is np.int64 else total / count
            assert values == pytest.approx([wanted] * tensors, rel=1e-3)
    longest = [rank for rank in range(size) if steps[rank] == max(steps)]
    assert max(steps) == 0 or all(one in longest for one in results[0][1])
    cluster.leave()


@SIZES
@pytest.mark.parametrize(
    ("op", "wanted"),
    [(Average, [-1, 1, 2]), (Sum, [-3, 3, 6]), (Min, [-3, 0, 0]), (Max, [0, 2, 3]), (Product, [0, 0, 0])],
)
def test_zeros_under_every_operation(op: ReduceOp, wanted: list[float], eager_bytes: int) -> None:
    cluster = Cluster(3, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[float]:
        if rank == 2:
            await join(collectives)
            return wanted
        await cluster.endpoints[rank].sleep(0.01)
        array = np.array([-3.0, 1.0, 3.0]) if rank else np.array([0.0, 2.0, 3.0])
        output = (await collectives.submit(Request("x", "allreduce", array, op))).output
        await join(collectives)
        return output.tolist()  # type: ignore[no-any-return]

    assert cluster.run(main) == [wanted] * 3
    cluster.leave()


@SIZES
def test_adasum_with_zeros_keeps_its_pairs(eager_bytes: int) -> None:
    """Rank 1 has joined: adasum(adasum(g0, 0), adasum(g2, g3)). Two tensors are fused."""
    cluster = Cluster(4, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[float]:
        if rank != 1:
            await cluster.endpoints[rank].sleep(0.01)
            futures = [
                collectives.submit(Request(name, "allreduce", np.full(7, value, np.float32), Adasum))
                for name, value in (("x", rank), ("y", 2 * rank + 2))
            ]
            results = await all_of(futures)
            assert {result.ranks for result in results} == {(0, 1, 2, 3)}
            outputs = [float(result.output[6]) for result in results]
        await join(collectives)
        return outputs if rank != 1 else [2.5, 4.5]

    # x: adasum(0, 2.5); y: adasum(2, adasum(6, 8)) = (2 + 7) / 2
    assert cluster.run(main) == [[2.5, 4.5]] * 4
    cluster.leave()


@SIZES
def test_what_needs_everybodys_data_fails_on_the_others_and_the_next_works(eager_bytes: int) -> None:
    cluster = Cluster(3, eager_bytes=eager_bytes)
    requests: list[dict[str, Any]] = [
        {"kind": "allgather", "array": np.ones(2)},
        {"kind": "broadcast", "array": np.ones(2)},
        {"kind": "alltoall", "array": np.ones(3)},
        {"kind": "reducescatter", "array": np.ones(3)},
    ]

    async def main(rank: int, collectives: Collectives) -> list[str]:
        errors = []
        if rank != 1:
            await cluster.endpoints[rank].sleep(0.01)
            for request in requests:
                with pytest.raises(HorovodInternalError) as raised:
                    await collectives.submit(Request("x", **request))
                errors.append(str(raised.value))
            with pytest.raises(HorovodInternalError, match="Add_process_set is not supported with Join"):
                await collectives.add_process_set([0, 2])
            good = await collectives.submit(Request("x", "allreduce", np.ones(2), Sum))
            assert good.output.tolist() == [2, 2]
            assert (await collectives.submit(Request("b", "barrier"))).ranks == (0, 2)
        await join(collectives)
        after = await collectives.submit(Request("x", "allgather", np.full(1, rank)))
        assert after.output.tolist() == [0, 1, 2]
        return errors

    texts = [f"{kind} is not supported with Join at this time. Rank 1 joined before 'x'." for kind in
             ("Allgather", "Broadcast", "Alltoall", "Reducescatter")]  # fmt: skip
    texts[0] += " Specify sparse_as_dense=True if using DistributedOptimizer."
    assert cluster.run(main) == [texts, [], texts]
    cluster.leave()


def test_live_only_leaves_those_out_who_have_joined() -> None:
    cluster = Cluster(4)

    async def main(rank: int, collectives: Collectives) -> tuple[int, float]:
        count, value = 2, 2.5
        if rank >= 2:
            await cluster.endpoints[rank].sleep(0.01)
            array = np.full(3, float(rank))
            count = await collectives.exact_average("mean", [array])
            value = array[0]
            gathered = await collectives.submit(Request("g", "allgather", np.full(1, rank), live_only=True))
            assert gathered.output.tolist() == [2, 3]
        await join(collectives)
        array = np.full(3, float(rank))
        assert await collectives.exact_average("mean", [array]) == 4
        return count, value

    assert cluster.run(main) == [(2, 2.5)] * 4


@SIZES
def test_what_a_rank_submitted_before_it_joined_counts(eager_bytes: int) -> None:
    cluster = Cluster(3, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[int]:
        await cluster.endpoints[rank].sleep(0.01 * rank)
        future = collectives.submit(Request("x", "allgather", np.full(1, rank)))
        last = collectives.submit(Request("join", "join"))
        output = (await future).output
        assert (await last).last_joined == 2
        return output.tolist()  # type: ignore[no-any-return]

    assert cluster.run(main) == [[0, 1, 2]] * 3
    cluster.leave()


@SIZES
@pytest.mark.parametrize("op", [Sum, Adasum])
def test_what_a_rank_submits_while_it_has_joined_is_the_next_of_that_name(op: ReduceOp, eager_bytes: int) -> None:
    """It is on its way when the coordinator has already gone on without it."""
    cluster = Cluster(2, world=SimulatedWorld(2), eager_bytes=eager_bytes, stall_shutdown_time=1.0)

    async def main(rank: int, collectives: Collectives) -> list[float]:
        def submit(value: float) -> Any:
            return collectives.submit(Request("x", "allreduce", np.array([value, 0.0][:: 1 - 2 * rank]), op))

        outputs = [1.0, 0.0]
        joined = collectives.submit(Request("join", "join")) if rank else None
        if rank == 0:
            await cluster.endpoints[0].sleep(0.01)
            outputs = (await submit(1.0)).output.tolist()
        await cluster.endpoints[rank].sleep(0.01)
        result = (await submit(5.0)).output.tolist()
        await (joined or collectives.submit(Request("join", "join")))
        return [*outputs, *result]

    assert cluster.run(main) == [[1, 0, 5, 5]] * 2
    cluster.leave()


def test_a_rank_that_joins_completes_what_waited_for_it_alone() -> None:
    cluster = Cluster(3)

    async def main(rank: int, collectives: Collectives) -> float:
        value = 1.0
        if rank:
            value = float((await collectives.submit(Request("x", "allreduce", np.full(2, 1.5 * rank)))).output[0])
        else:
            await cluster.endpoints[rank].sleep(0.1)
        await join(collectives)
        return value

    assert cluster.run(main) == [1.0, 1.5, 1.5]


@pytest.mark.parametrize("who", [0, 2], ids=["coordinator", "other"])
def test_who_shuts_down_is_not_waited_for(who: int) -> None:
    cluster = Cluster(3)

    async def main(rank: int, collectives: Collectives) -> int:
        if rank == who:
            await cluster.endpoints[rank].sleep(0.01)
            await collectives.depart()
            return -1
        return await join(collectives)

    last = {result for rank, result in enumerate(cluster.run(main)) if rank != who}
    assert len(last) == 1
    assert last < {0, 1, 2} - {who}


@pytest.mark.parametrize("joined_first", [False, True])
def test_who_dies_is_not_waited_for(joined_first: bool) -> None:
    world = SimulatedWorld(4 if joined_first else 3)
    cluster = Cluster(world.size, world=world)

    async def main(rank: int, collectives: Collectives) -> int:
        if joined_first and rank == 2:
            return await join(collectives)
        with pytest.raises(HorovodInternalError):
            await collectives.submit(Request("x", "allreduce", np.ones(1_000_000), Adasum if joined_first else Sum))
        return await join(collectives)

    tasks = [endpoint.spawn(main(endpoint.rank, cluster.collectives[endpoint.rank])) for endpoint in world.endpoints]
    world.kill(2, at=2e-4)
    left = [task for rank, task in enumerate(tasks) if rank != 2]
    world.run(left)
    assert len({task.result() for task in left}) == 1
    assert left[0].result() in (0, 1, 3)


def test_a_coordinator_that_leaves_hands_the_join_over() -> None:
    cluster = Cluster(4)

    async def main(rank: int, collectives: Collectives) -> int:
        if rank == 0:
            await cluster.endpoints[0].sleep(0.01)
            await collectives.depart()
            return 3
        if rank == 3:
            await cluster.endpoints[3].sleep(0.1)
            output = (await collectives.submit(Request("x", "allreduce", np.ones(2), live_only=True))).output
            assert output.tolist() == [1, 1]
        return await join(collectives)

    assert cluster.run(main) == [3] * 4


@SIZES
def test_a_join_of_a_process_set_and_of_all(eager_bytes: int) -> None:
    """Who has joined globally submits nothing anywhere; who has joined a set still works elsewhere."""
    cluster = Cluster(4, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[float]:
        endpoint = cluster.endpoints[rank]
        number = await collectives.add_process_set([1, 2, 3])
        totals = []
        if rank == 1:
            assert await join(collectives, number) == 3
            totals.append(1.0)
        elif rank in (2, 3):
            await endpoint.sleep(0.01)
            request = Request("x", "allreduce", np.ones(3), Sum, process_set=number)
            totals.append(float((await collectives.submit(request)).output[0]) - 1)
            await endpoint.sleep(0.01 * (rank - 2))
            await join(collectives, number)
        else:
            totals.append(1.0)
        await collectives.submit(Request("all", "barrier"))
        if rank == 1:
            await join(collectives)
            return [*totals, 2.0]
        await endpoint.sleep(0.01)
        if rank:
            request = Request("y", "allreduce", np.ones(3), Sum, process_set=number)
            totals.append(float((await collectives.submit(request)).output[0]))
        else:
            totals.append(2.0)
        await join(collectives)
        return totals

    assert cluster.run(main) == [[1.0, 2.0]] * 4
    cluster.leave()


def test_two_joins_at_once_on_one_rank_are_a_mistake() -> None:
    cluster = Cluster(2)

    async def main(rank: int, collectives: Collectives) -> int:
        first = collectives.submit(Request("a", "join"))
        with pytest.raises(ValueError, match="same name as another tensor"):
            await collectives.submit(Request("b", "join"))
        return (await first).last_joined

    assert len(set(cluster.run(main))) == 1
