"""Named operations on all ranks: any order, any delays, any settings, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.collectives import Average, Collectives, Max, ReduceOp, Request, Result, Sum
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.tasks import Future, all_of
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links
from tests.collectives.cluster import Cluster, assert_reduced, assert_same_bits, reduced, reductions, values

OPTIONS = st.fixed_dictionaries(
    {
        "fusion_threshold": st.sampled_from([0, 600, 128 << 20]),
        "cycle_time": st.sampled_from([0.0, 0.2, 50.0]),
        "cache_capacity": st.sampled_from([0, 1, 3, 1024]),
        "eager_bytes": st.sampled_from([0, 200, 128 << 10]),
        "chunk_bytes": st.sampled_from([64, 512 << 10]),
    }
)


def draw_request(draw: Callable[[Any], Any], name: str, size: int) -> Callable[[int], Request]:
    """An operation: a function that makes each rank's request of it."""
    kinds = ["allreduce", "allreduce", "allgather", "broadcast", "barrier", "alltoall", "reducescatter"]
    kind = draw(st.sampled_from(kinds))
    dtype, op = draw(reductions)
    op = Sum if dtype.kind == "b" else op
    shape = tuple(draw(st.lists(st.integers(0, 12), max_size=3)))
    seed, in_place, root = draw(st.integers(0, 999)), draw(st.booleans()), draw(st.integers(0, size - 1))

    def make(rank: int) -> Request:
        if kind == "barrier":
            return Request(name, kind)
        if kind == "allgather":
            return Request(name, kind, values(dtype, ((seed + rank) % 4, *shape), seed + rank))
        if kind == "alltoall":
            splits = tuple((seed + rank + other) % 4 for other in range(size))
            return Request(name, kind, values(dtype, (sum(splits), *shape), seed + rank), splits=splits)
        if kind == "reducescatter":
            return Request(name, kind, values(dtype, (seed % 40, *shape), seed + rank), Sum)
        array = values(dtype, shape, seed + rank)
        return Request(name, kind, array, op, root_rank=root, output=array if in_place else None)

    return make


def check(makers: list[Request], results: list[Result]) -> None:
    """One operation's results against NumPy."""
    first, ranks = makers[0], tuple(range(len(makers)))
    assert all(result.ranks == ranks for result in results)
    if first.kind == "barrier":
        assert all(result.output is None for result in results)
        return
    arrays = [request.array for request in makers]
    if first.kind == "alltoall":
        for rank, result in enumerate(results):
            starts = [sum(request.splits[:rank]) for request in makers]
            parts = [
                array[start : start + request.splits[rank]]
                for array, start, request in zip(arrays, starts, makers, strict=True)
            ]
            assert_same_bits([result.output, np.concatenate(parts)])
        return
    if first.kind == "reducescatter":
        assert_reduced(np.concatenate([result.output for result in results]), reduced(arrays, first.op))
        return
    assert_same_bits([result.output for result in results])
    output = results[0].output
    assert output is not None
    if first.kind == "allreduce":
        assert_reduced(output, reduced(arrays, first.op))
    elif first.kind == "broadcast":
        assert_same_bits([output, arrays[first.root_rank]])
    else:
        assert_same_bits([output, np.concatenate(arrays)])
        assert all(result.sizes == tuple(len(array) for array in arrays) for result in results)


@settings(max_examples=150)
@given(data=st.data(), size=st.integers(1, 9), seed=st.integers(0, 10_000), options=OPTIONS)
def test_any_order_and_delay(data: st.DataObject, size: int, seed: int, options: dict[str, Any]) -> None:
    makers = [draw_request(data.draw, f"tensor {i}", size) for i in range(data.draw(st.integers(1, 6)))]
    rounds = data.draw(st.integers(1, 3))
    cluster = Cluster(size, seed, **options)

    async def main(rank: int, collectives: Collectives) -> list[list[Result]]:
        stream, endpoint = np.random.default_rng((seed, rank)), cluster.endpoints[rank]
        gathered = []
        for _ in range(rounds):
            futures: dict[int, Future[Result]] = {}
            for index in stream.permutation(len(makers)):
                if stream.random() < 0.5:
                    await endpoint.sleep(stream.exponential(1e-4))
                futures[index] = collectives.submit(makers[index](rank))
            gathered.append([await futures[index] for index in range(len(makers))])
        return gathered

    results = cluster.run(main)
    for round_ in range(rounds):
        for index, make in enumerate(makers):
            check([make(rank) for rank in range(size)], [result[round_][index] for result in results])
    cluster.leave()


def test_64_ranks() -> None:
    cluster = Cluster(64, seed=2)

    async def main(rank: int, collectives: Collectives) -> list[Result]:
        requests = [Request("large", "allreduce", np.full(3000, rank, np.float64), Sum)]
        requests.append(Request("small", "allreduce", np.full(3, rank, np.int32), Max))
        requests.append(Request("rows", "allgather", np.full((rank % 3, 2), rank, np.int16)))
        requests.append(Request("all here", "barrier"))
        order = cluster.endpoints[rank].rng.permutation(len(requests))
        futures = {index: collectives.submit(requests[index]) for index in order}
        return [await futures[index] for index in range(len(requests))]

    results = cluster.run(main)
    large, small, rows = (results[63][index].output for index in range(3))
    assert (large == 63 * 32).all()
    assert small.tolist() == [63, 63, 63]
    assert rows[:, 0].tolist() == [rank for rank in range(64) for _ in range(rank % 3)]
    cluster.leave()


@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_a_group_of_allgathers_of_different_types_and_lengths(eager_bytes: int) -> None:
    cluster = Cluster(3, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[Result]:
        arrays = [np.full((rank, 2), rank, np.float32), np.full(3 - rank, rank, np.int64)]
        futures = [
            collectives.submit(Request(f"x{i}", "allgather", array, group="g", group_size=2))
            for i, array in enumerate(arrays)
        ]
        assert not futures[0].done()
        return await all_of(futures)

    for first, second in cluster.run(main):
        assert first.output.tolist() == [[1, 1], [2, 2], [2, 2]]
        assert second.output.tolist() == [0, 0, 0, 1, 1, 2]
        assert (first.sizes, second.sizes) == ((0, 1, 2), (3, 2, 1))
    cluster.leave()


def test_small_operations_take_one_round_trip() -> None:
    """Latency is the point of the eager path: two messages' time, whatever the cycle time."""
    world = SimulatedWorld(4)
    cluster = Cluster(4, world=world, cycle_time=1000.0)

    async def main(rank: int, collectives: Collectives) -> float:
        for request in (Request("x", "allreduce", np.zeros(256, np.float32)), Request("b", "barrier")):
            await collectives.submit(request)
        begin = world.now
        await collectives.submit(Request("x", "allreduce", np.zeros(256, np.float32)))
        return world.now - begin

    assert max(cluster.run(main)) < 2 * (10e-6 + 1100 / 10e9) + 1e-9


def test_a_single_large_allreduce_does_not_wait_for_a_cycle() -> None:
    cluster = Cluster(2, world=SimulatedWorld(2), cycle_time=1000.0)

    async def main(rank: int, collectives: Collectives) -> None:
        await collectives.submit(Request("x", "allreduce", np.zeros(1_000_000, np.float32)))

    cluster.run(main)
    assert cluster.world.now < 0.01


def test_what_becomes_ready_during_a_transfer_is_fused_and_waits_no_longer_than_a_cycle() -> None:
    spans: list[tuple[str, str, float, float]] = []
    world = SimulatedWorld(2)
    cluster = Cluster(2, world=world, cycle_time=0.5, eager_bytes=0, trace=lambda *span: spans.append(span))

    async def main(rank: int, collectives: Collectives) -> None:
        futures = [collectives.submit(Request("first", "allreduce", np.zeros(20_000_000, np.float32)))]
        await world.endpoints[rank].sleep(1e-4)
        for index in range(3):
            futures.append(collectives.submit(Request(f"later {index}", "allreduce", np.zeros(1000, np.float32))))
            await world.endpoints[rank].sleep(1e-4)
        await all_of(futures)

    cluster.run(main)
    transfers = {name: (start, end) for name, activity, start, end in spans if activity == "ALLREDUCE"}
    assert len({transfers[f"later {index}"] for index in range(3)}) == 1
    assert transfers["later 0"][0] == pytest.approx(1e-4 + 0.5e-3, abs=1e-4)
    assert transfers["later 0"][1] < transfers["first"][1]


def test_trace_shows_negotiation_then_transfer() -> None:
    """By Horovod's documented names; the coordinator sees every rank come."""
    spans: list[tuple[str, str, float, float | None]] = []
    cluster = Cluster(2, eager_bytes=0, trace=lambda *span: spans.append(span))
    cluster.run(lambda rank, collectives: collectives.submit(Request("x", "allreduce", np.zeros(9))))
    seen = [activity for name, activity, _, _ in spans if name == "x"]
    assert seen[:3] == ["NEGOTIATE_ALLREDUCE", "0", "1"]
    assert sorted(seen[3:]) == sorted(["NEGOTIATE_ALLREDUCE", "ALLREDUCE", "QUEUE", "MPI_ALLREDUCE"] * 2)
    assert spans[0][3] is None
    assert all(start <= end for _, _, start, end in spans if end is not None)
    assert ("", "CYCLE_START") in {(name, activity) for name, activity, _, _ in spans}


def test_trace_of_an_operation_that_came_with_the_answer() -> None:
    spans: list[tuple[str, str, float, float | None]] = []
    cluster = Cluster(3, trace=lambda *span: spans.append(span))
    cluster.run(lambda rank, collectives: collectives.submit(Request("x", "broadcast", np.zeros(3), root_rank=1)))
    seen = [activity for name, activity, _, _ in spans if name == "x"]
    assert seen.count("BROADCAST") == 3
    assert seen.count("NEGOTIATE_BROADCAST") == 4  # begun and ended on the coordinator, whole on the other two
    assert {"0", "1", "2"} < set(seen)


@pytest.mark.parametrize("eager_bytes", [0, 128 << 10])
def test_exact_average_is_in_place_and_of_all_arrays_at_once(eager_bytes: int) -> None:
    cluster = Cluster(3, eager_bytes=eager_bytes)
    arrays = [[np.full(10, rank, np.float32), np.full((2, 3), 10.0 * rank)] for rank in range(3)]
    assert cluster.run(lambda rank, collectives: collectives.exact_average("mean", arrays[rank])) == [3, 3, 3]
    for flat, matrix in arrays:
        assert (flat == 1).all()
        assert (matrix == 10).all()
    assert cluster.run(lambda rank, collectives: collectives.exact_average("nothing", [])) == [3, 3, 3]
    cluster.leave()


def test_a_name_in_flight_is_refused_and_can_be_used_again_afterwards() -> None:
    cluster = Cluster(2, eager_bytes=0)

    async def main(rank: int, collectives: Collectives) -> list[BaseException | None]:
        first = collectives.submit(Request("x", "allreduce", np.ones(1000), Sum))
        errors = [collectives.submit(Request("x", "broadcast", np.ones(2))).error()]
        while cluster.collectives[rank]._client.executor.idle:
            await cluster.endpoints[rank].sleep(1e-6)
        errors.append(collectives.submit(Request("x", "allreduce", np.ones(1000))).error())
        assert (await first).output[0] == 2
        assert (await collectives.submit(Request("x", "allreduce", np.ones(3), Sum))).output[0] == 2
        return errors

    for errors in cluster.run(main):
        assert [type(error) for error in errors] == [ValueError, ValueError]
        assert "same name as another tensor that is currently being processed: 'x'" in str(errors[0])
    cluster.leave()


def test_a_name_is_free_when_its_future_completes() -> None:
    """A callback may submit the same name at once."""
    cluster = Cluster(2, eager_bytes=0)
    second: list[Future[Result]] = []

    async def main(rank: int, collectives: Collectives) -> Result:
        future = collectives.submit(Request("x", "allreduce", np.ones(100), Sum))
        future.add_callback(lambda _: second.append(collectives.submit(Request("x", "allreduce", np.ones(100), Sum))))
        return await future

    cluster.run(main)
    cluster.world.run(second)
    assert [future.result().output[0] for future in second] == [2, 2]


def test_requests_that_no_rank_can_carry_out_are_refused_before_anything_is_sent() -> None:
    cluster = Cluster(2)
    submit = cluster.collectives[0].submit
    root = submit(Request("x", "broadcast", np.ones(1), root_rank=2)).error()
    process_set = submit(Request("x", "allreduce", np.ones(1), process_set=3)).error()
    assert isinstance(root, ValueError)
    assert str(root) == "broadcast 'x': root rank 2 is not one of ranks 0-1"
    assert isinstance(process_set, ValueError)
    assert "process set 3" in str(process_set)
    cluster.leave()


@pytest.mark.parametrize("capacity", [0, 1, 2])
def test_more_names_than_the_cache_holds(capacity: int) -> None:
    cluster = Cluster(3, seed=5, cache_capacity=capacity)

    async def main(rank: int, collectives: Collectives) -> None:
        for round_ in range(6):
            names = [f"tensor {(i + round_) % 5}" for i in range(5)]
            futures = [collectives.submit(Request(name, "allreduce", np.ones(2), Sum)) for name in names]
            for future in futures:
                assert (await future).output[0] == 3

    cluster.run(main)
    caches = [collectives._state.cache for collectives in cluster.collectives]
    assert [len(cache) for cache in caches] == [capacity] * 3
    assert len({tuple(cache._entries.items()) for cache in caches}) == 1
    cluster.leave()


def test_a_request_whose_id_was_evicted_on_its_way_is_submitted_again() -> None:
    """Rank 1 submits "a" by its id while the coordinator, which has not heard of it yet, gives the place to "b"."""
    world = SimulatedWorld(2, links=Links(latency=1.0))
    cluster = Cluster(2, world=world, cache_capacity=1)

    async def main(rank: int, collectives: Collectives) -> list[float]:
        def submit(name: str) -> Future[Result]:
            return collectives.submit(Request(name, "allreduce", np.ones(2), Sum))

        await submit("a")
        await submit("barrier")
        await submit("a")
        b = submit("b")
        await world.endpoints[rank].sleep(0.5 if rank else 4.0)
        a = submit("a")
        assert rank == 0 or collectives._client._pending[0, "a"].sent_id is None
        await world.endpoints[rank].sleep(0.1)
        assert rank == 0 or collectives._client._pending[0, "a"].sent_id is not None
        return [(await future).output[0] for future in (a, b)]

    assert cluster.run(main) == [[2, 2]] * 2
    cluster.leave()


def test_a_name_may_change_its_shape() -> None:
    cluster = Cluster(2)

    async def main(rank: int, collectives: Collectives) -> None:
        for length in (3, 3, 5, 5, 3):
            result = await collectives.submit(Request("x", "allreduce", np.full(length, rank), Average))
            assert result.output.shape == (length,)

    cluster.run(main)
    cluster.leave()


def test_bfloat16_bits_in_an_integer_array() -> None:
    cluster = Cluster(2)
    bits = np.full(4, 0x3FC0, np.uint16)  # 1.5
    request = {"op": ReduceOp.SUM, "dtype_name": "bfloat16"}
    results = cluster.run(lambda _, collectives: collectives.submit(Request("x", "allreduce", bits, **request)))
    assert all((result.output.astype(np.float32) == 3).all() for result in results)


def test_submitting_after_departure_fails() -> None:
    cluster = Cluster(1)
    cluster.leave()
    error = cluster.collectives[0].submit(Request("x", "barrier")).error()
    assert isinstance(error, HorovodInternalError)
    assert "rank 0 has shut down" in str(error)
