"""alltoall: any splits, any number of ranks, against slices; and what is wrong with splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.collectives import Collectives, Request, Result, Sum
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.tasks import all_of
from tests.collectives.cluster import DTYPES, Cluster, assert_same_bits, values


def check(arrays: list[Any], splits: list[tuple[int, ...]], results: list[Result]) -> None:
    """Every rank has, in the order of the ranks, what each had for it."""
    for rank, result in enumerate(results):
        parts = []
        for array, given_ in zip(arrays, splits, strict=True):
            start = sum(given_[:rank])
            parts.append(array[start : start + given_[rank]])
        assert_same_bits([result.output, np.concatenate(parts)])
        assert result.output is not None
        assert result.output.shape[1:] == arrays[0].shape[1:]
        assert result.sizes == tuple(given_[rank] for given_ in splits)


@settings(max_examples=80)
@given(
    data=st.data(),
    size=st.integers(1, 16),
    dtype=st.sampled_from(DTYPES),
    row=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    seed=st.integers(0, 10_000),
    eager_bytes=st.sampled_from([0, 4000, 1 << 20]),
    chunk_bytes=st.sampled_from([16, 1 << 20]),
)
def test_any_splits(
    data: st.DataObject,
    size: int,
    dtype: np.dtype[Any],
    row: tuple[int, ...],
    seed: int,
    eager_bytes: int,
    chunk_bytes: int,
) -> None:
    splits = [tuple(data.draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))) for _ in range(size)]
    spare = data.draw(st.integers(0, 2))  # rows that no split names stay where they are
    arrays = [values(dtype, (sum(one) + spare, *row), seed + rank) for rank, one in enumerate(splits)]
    cluster = Cluster(size, seed, eager_bytes=eager_bytes, chunk_bytes=chunk_bytes)

    async def main(rank: int, collectives: Collectives) -> tuple[Result, Result]:
        await cluster.endpoints[rank].sleep(float(cluster.endpoints[rank].rng.exponential(1e-4)))
        request = Request("x", "alltoall", arrays[rank], splits=splits[rank])
        return await collectives.submit(request), await collectives.submit(request)

    results = cluster.run(main)
    for round_ in range(2):
        check(arrays, splits, [result[round_] for result in results])
    cluster.leave()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_without_splits_each_gets_as_many_rows(size: int, eager_bytes: int) -> None:
    cluster = Cluster(size, eager_bytes=eager_bytes)
    arrays = [np.arange(2 * size) + 100 * rank for rank in range(size)]

    async def main(rank: int, collectives: Collectives) -> Result:
        return await collectives.submit(Request("x", "alltoall", arrays[rank]))

    check(arrays, [(2,) * size] * size, cluster.run(main))


@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_nothing_at_all_is_sent(eager_bytes: int) -> None:
    cluster = Cluster(3, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> tuple[Any, Any]:
        result = await collectives.submit(Request("x", "alltoall", np.empty((0, 2), np.int16)))
        return result.output.shape, result.sizes

    assert cluster.run(main) == [((0, 2), (0, 0, 0))] * 3


WRONG: list[tuple[tuple[int, ...], str]] = [
    ((2, 1), "Number of entries in splits does not equal number of workers: 2 for 3"),
    ((1, 1, 1, 1), "Number of entries in splits does not equal number of workers: 4 for 3"),
    ((2, 3, 4), "Sum of splits entries is greater than the first dimension of tensor: [2, 3, 4] of 4 rows"),
    ((2, -1, 1), "Entries of splits must not be negative: [2, -1, 1]"),
    (
        (),
        "splits not provided, but first dimension of tensor is not an even multiple of the number of workers: 4 rows among 3",
    ),
]


@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
@pytest.mark.parametrize(("splits", "text"), WRONG)
def test_wrong_splits_of_one_rank_fail_all_and_the_next_works(
    splits: tuple[int, ...], text: str, eager_bytes: int
) -> None:
    cluster = Cluster(3, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> tuple[str, list[int]]:
        request = Request("x", "alltoall", np.arange(4), splits=splits if rank == 1 else (1, 1, 1))
        with pytest.raises(HorovodInternalError) as raised:
            await collectives.submit(request)
        good = await collectives.submit(Request("x", "alltoall", np.arange(3) + rank))
        return str(raised.value), good.output.tolist()

    message = f"alltoall 'x': rank 1: {text}."
    assert cluster.run(main) == [(message, [rank, rank + 1, rank + 2]) for rank in range(3)]
    cluster.leave()


def test_a_group_of_alltoalls_fails_as_a_whole() -> None:
    cluster = Cluster(2)

    async def main(rank: int, collectives: Collectives) -> int:
        futures = [
            collectives.submit(Request(name, "alltoall", np.arange(rows), group="g", group_size=2))
            for name, rows in (("good", 4), ("bad", 3))
        ]
        failures = 0
        for future in futures:
            with pytest.raises(HorovodInternalError, match="alltoall 'bad': rank 0: splits not provided"):
                await future
            failures += 1
        return failures

    assert cluster.run(main) == [2, 2]


def test_what_can_only_be_wrong_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="splits are numbers of rows"):
        Request("x", "alltoall", np.arange(3), splits=(1 << 62, 0))
    with pytest.raises(ValueError, match="only alltoall takes splits"):
        Request("x", "allgather", np.arange(3), splits=(3,))
    with pytest.raises(ValueError, match="live_only has no meaning for alltoall"):
        Request("x", "alltoall", np.arange(3), live_only=True)
    with pytest.raises(ValueError, match=r"a rank-zero tensor .* cannot be split"):
        Request("x", "alltoall", np.array(3))
    with pytest.raises(ValueError, match="output must be None"):
        Request("x", "alltoall", np.arange(3), output=np.arange(3))


def test_alltoall_within_a_process_set_beside_an_allreduce_of_all() -> None:
    cluster = Cluster(5, eager_bytes=0)

    async def main(rank: int, collectives: Collectives) -> tuple[list[int], int]:
        number = await collectives.add_process_set([1, 3, 4])
        futures = [collectives.submit(Request("all", "allreduce", np.ones(3, np.int64), Sum))]
        if rank in (1, 3, 4):
            array = np.arange(6) + 10 * rank
            futures.append(collectives.submit(Request("some", "alltoall", array, process_set=number, splits=(1, 2, 3))))
        results = await all_of(futures)
        return results[-1].output.tolist() if len(results) > 1 else [], int(results[0].output[0])

    outputs = cluster.run(main)
    assert [total for _, total in outputs] == [5] * 5
    assert [output for output, _ in outputs] == [
        [], [10, 30, 40], [], [11, 12, 31, 32, 41, 42], [13, 14, 15, 33, 34, 35, 43, 44, 45],
    ]  # fmt: skip
    cluster.leave()
