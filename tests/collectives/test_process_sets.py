"""Process sets: agreed on by all ranks, with their own names, their operations beside each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.collectives import Average, Collectives, Request, Result, Sum
from hvd_gossip.collectives.cache import ResponseCache
from hvd_gossip.collectives.entries import Answer, ChangeSet, Define
from hvd_gossip.collectives.request import Signature
from hvd_gossip.collectives.state import State
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.tasks import Future, all_of
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import Cluster


@settings(max_examples=60)
@given(
    data=st.data(),
    size=st.integers(1, 16),
    count=st.integers(1, 5),
    rounds=st.integers(1, 3),
    seed=st.integers(0, 10_000),
    eager_bytes=st.sampled_from([0, 1 << 20]),
    cache_capacity=st.sampled_from([0, 2, 1024]),
)
def test_operations_of_many_sets_under_the_same_names(
    data: st.DataObject, size: int, count: int, rounds: int, seed: int, eager_bytes: int, cache_capacity: int
) -> None:
    members = st.sets(st.integers(0, size - 1), min_size=1).map(lambda ranks: tuple(sorted(ranks)))
    sets = data.draw(
        st.lists(members.filter(lambda ranks: len(ranks) < size or size == 1), max_size=count, unique=True)
    )
    sets = [ranks for ranks in sets if len(ranks) < size]
    cluster = Cluster(size, seed, eager_bytes=eager_bytes, cache_capacity=cache_capacity, chunk_bytes=64)

    async def main(rank: int, collectives: Collectives) -> list[int]:
        endpoint = cluster.endpoints[rank]
        numbers = [await collectives.add_process_set(ranks) for ranks in sets]
        mine = [(0, tuple(range(size))), *zip(numbers, sets, strict=True)]
        mine = [(number, ranks) for number, ranks in mine if rank in ranks]
        for round_ in range(rounds):
            futures: dict[tuple[int, str], Future[Result]] = {}
            for index in endpoint.rng.permutation(3 * len(mine)):
                number, ranks = mine[index // 3]
                kind = ("allreduce", "allgather", "broadcast")[index % 3]
                array = np.full(7, 10 * round_ + rank)
                request = Request(kind, kind, array, Sum, root_rank=ranks[-1], process_set=number)
                futures[number, kind] = collectives.submit(request)
                if endpoint.rng.random() < 0.3:
                    await endpoint.sleep(float(endpoint.rng.exponential(1e-4)))
            for number, ranks in mine:
                values = [10 * round_ + other for other in ranks]
                for kind, wanted in (("allreduce", sum(values)), ("broadcast", values[-1])):
                    result = await futures[number, kind]
                    assert result.output.tolist() == [wanted] * 7
                    assert result.ranks == ranks
                gathered = await futures[number, "allgather"]
                assert gathered.output.tolist() == [value for value in values for _ in range(7)]
                assert gathered.sizes == (7,) * len(ranks)
        return numbers

    assert cluster.run(main) == [list(range(1, len(sets) + 1))] * size
    cluster.leave()


def test_a_slow_set_holds_up_no_other() -> None:
    """Rank 3 is late for its set; the other set's ranks go on."""
    cluster = Cluster(4, world=SimulatedWorld(4), eager_bytes=0)

    async def main(rank: int, collectives: Collectives) -> float:
        endpoint = cluster.endpoints[rank]
        numbers = [await collectives.add_process_set(ranks) for ranks in ((0, 1), (2, 3))]
        if rank == 3:
            await endpoint.sleep(1.0)
        for _ in range(3):
            await collectives.submit(Request("x", "allreduce", np.ones(100), process_set=numbers[rank // 2]))
        return endpoint.now()

    finished = cluster.run(main)
    assert max(finished[:2]) < 0.1
    assert min(finished[2:]) >= 1.0


def test_numbers_are_never_used_twice_and_equal_sets_are_refused() -> None:
    cluster = Cluster(3)

    async def main(rank: int, collectives: Collectives) -> list[Any]:
        first = await collectives.add_process_set([0, 2])
        for ranks in ([0, 2], [0, 1, 2]):
            with pytest.raises(ValueError, match="Attempted to add a duplicate process set"):
                await collectives.add_process_set(ranks)
        for ranks in ([], [0, 3], [1, 1], [-1], [2, 0]):
            with pytest.raises(ValueError, match="A process set has ranks of 0 to 2, each once"):
                await collectives.add_process_set(ranks)
        removed = await collectives.remove_process_set(first)
        again = await collectives.remove_process_set(first)
        with pytest.raises(ValueError, match="The global process set cannot be removed"):
            await collectives.remove_process_set(0)
        return [first, removed, again, await collectives.add_process_set([0, 2])]

    assert cluster.run(main) == [[1, True, False, 2]] * 3
    cluster.leave()


def test_different_calls_fail_on_all_and_the_next_works() -> None:
    cluster = Cluster(3)

    async def main(rank: int, collectives: Collectives) -> list[str]:
        errors = []
        with pytest.raises(HorovodInternalError) as raised:
            await collectives.add_process_set([0, 2] if rank else [0, 1])
        errors.append(str(raised.value))
        number = await collectives.add_process_set([0, 1])
        with pytest.raises(HorovodInternalError) as raised:
            await (collectives.remove_process_set(number) if rank else collectives.add_process_set([2]))
        errors.append(str(raised.value))
        assert await collectives.remove_process_set(number)
        return errors

    sets = "Mismatched process sets for 'process_set': rank 0 submitted [0, 1], but ranks 1-2 submitted [0, 2]."
    kinds = (
        "Mismatched operations for 'process_set': rank 0 submitted add_process_set, "
        "but ranks 1-2 submitted remove_process_set."
    )
    assert cluster.run(main) == [[sets, kinds]] * 3
    cluster.leave()


def test_who_is_not_in_a_set_or_does_not_know_it_is_told() -> None:
    cluster = Cluster(2)

    async def main(rank: int, collectives: Collectives) -> None:
        with pytest.raises(ValueError, match="process set 1 does not exist or has not been registered"):
            await collectives.submit(Request("x", "barrier", process_set=1))
        number = await collectives.add_process_set([1])
        if rank == 0:
            with pytest.raises(ValueError, match="Rank 0 is not a member of the provided process set"):
                await collectives.submit(Request("x", "barrier", process_set=number))
        else:
            with pytest.raises(ValueError, match="root rank 0 is not one of rank 1"):
                await collectives.submit(Request("x", "broadcast", np.ones(1), process_set=number))
            await collectives.submit(Request("x", "barrier", process_set=number))

    cluster.run(main)
    cluster.leave()


def test_what_waits_in_a_set_fails_when_that_is_removed() -> None:
    cluster = Cluster(3)

    async def main(rank: int, collectives: Collectives) -> int:
        number = await collectives.add_process_set([0, 1])
        future = None
        if rank == 0:
            future = collectives.submit(Request("x", "allreduce", np.ones(2), process_set=number))
            await cluster.endpoints[rank].sleep(0.01)
        removed = collectives.remove_process_set(number)
        if rank == 1:  # on its way when the coordinator has removed the set
            await cluster.endpoints[rank].sleep(0.02)
        assert await removed
        if future is not None:
            with pytest.raises(HorovodInternalError, match=f"Process set {number} has been removed"):
                await future
        return int((await collectives.submit(Request("y", "allreduce", np.ones(2, np.int64), Sum))).output[0])

    assert cluster.run(main) == [3] * 3
    cluster.leave()


def test_only_the_members_departure_counts() -> None:
    """Sets can be made when some are gone, too; the coordinator is the first to go."""
    cluster = Cluster(5)

    async def main(rank: int, collectives: Collectives) -> list[Any]:
        first = await collectives.add_process_set([0, 1, 2])
        if rank == 0:
            await collectives.depart()
            return []
        await cluster.endpoints[rank].sleep(0.1)
        second = await collectives.add_process_set([2, 3, 4])
        outputs: list[Any] = [second]
        if rank < 3:
            with pytest.raises(HorovodInternalError, match="rank 0 has shut down"):
                await collectives.submit(Request("x", "allreduce", np.ones(2), process_set=first))
            result = await collectives.submit(
                Request("y", "allreduce", np.full(2, rank), Average, process_set=first, live_only=True)
            )
            outputs.append((result.ranks, result.output.tolist()))
        if rank > 1:
            result = await collectives.submit(Request("x", "allreduce", np.ones(2), Sum, process_set=second))
            outputs.append((result.ranks, result.output.tolist()))
        return outputs

    first, second = ((1, 2), [1, 1]), ((2, 3, 4), [3.0, 3.0])
    assert cluster.run(main) == [[], [2, first], [2, first, second], [2, second], [2, second]]


def test_a_mismatch_in_one_set_leaves_the_others_alone() -> None:
    cluster = Cluster(4)

    async def main(rank: int, collectives: Collectives) -> float:
        numbers = [await collectives.add_process_set(ranks) for ranks in ((0, 1), (2, 3))]
        number = numbers[rank // 2]
        if rank < 2:
            with pytest.raises(HorovodInternalError, match="Mismatched data types"):
                await collectives.submit(
                    Request("x", "allreduce", np.ones(2, np.float32 if rank else np.float64), process_set=number)
                )
        futures = [
            collectives.submit(
                Request(name, "allreduce", np.full(2, rank), Sum, process_set=number, group="g", group_size=2)
            )
            for name in ("x", "y")
        ]
        results = await all_of(futures)
        return float(results[1].output[0])

    assert cluster.run(main) == [1, 1, 5, 5]
    cluster.leave()


def test_results_travel_only_to_who_takes_part() -> None:
    state = State(ResponseCache(8), {0: (0, 1, 2), 1: (0, 2)}, {})
    state.cache.define(4, Signature("x", "allreduce", process_set=1))
    state.cache.define(5, Signature("x", "allreduce"))
    stream = [Define(4, Signature("x", "allreduce", process_set=1)), Answer(4, b"1234", ()), Answer(5, b"5678", ())]
    assert state.for_rank(stream, 2) == stream
    assert state.for_rank(stream, 1) == [stream[0], Answer(4, b"", ()), stream[2]]


def test_a_coordinators_own_state_is_apart() -> None:
    state = State(ResponseCache(8), {0: (0, 1, 2)}, {})
    own = state.copy()
    entry = own.new_set((0, 1))
    assert entry == ChangeSet(1, (0, 1), "")
    own.change(entry)
    assert (own.next_set, state.next_set, state.process_sets) == (2, 1, {0: (0, 1, 2)})
    own.change(own.new_set((0, 1)))
    own.change(own.without(0))
    assert own.process_sets == {0: (0, 1, 2), 1: (0, 1)}
    own.change(own.without(1))
    assert (own.process_sets, own.next_set) == ({0: (0, 1, 2)}, 2)
