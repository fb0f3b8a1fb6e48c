"""reducescatter: any shape, any number of ranks, against the rows of the plain reduction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.collectives import Adasum, Average, Collectives, Max, Min, Product, ReduceOp, Request, Result, Sum
from hvd_gossip.collectives.rows import even_rows
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.tasks import all_of
from tests.collectives.cluster import DTYPES, Cluster, assert_reduced, reduced, values


@settings(max_examples=80)
@given(
    size=st.integers(1, 16),
    dtype=st.sampled_from(DTYPES),
    op=st.sampled_from([Average, Sum]),
    shape=st.lists(st.integers(0, 20), min_size=1, max_size=3).map(tuple),
    factors=st.sampled_from([(1.0, 1.0), (0.5, 1.0), (2.0, 3.0)]),
    seed=st.integers(0, 10_000),
    eager_bytes=st.sampled_from([0, 1 << 20]),
    chunk_bytes=st.sampled_from([16, 1 << 20]),
)
def test_any_shape(
    size: int,
    dtype: np.dtype[Any],
    op: ReduceOp,
    shape: tuple[int, ...],
    factors: tuple[float, float],
    seed: int,
    eager_bytes: int,
    chunk_bytes: int,
) -> None:
    if dtype.kind == "b":
        op, factors = Sum, (1.0, 1.0)
    arrays = [values(dtype, shape, seed + rank) for rank in range(size)]
    before = [array.copy() for array in arrays]
    cluster = Cluster(size, seed, eager_bytes=eager_bytes, chunk_bytes=chunk_bytes)

    async def main(rank: int, collectives: Collectives) -> Result:
        await cluster.endpoints[rank].sleep(float(cluster.endpoints[rank].rng.exponential(1e-4)))
        return await collectives.submit(Request("x", "reducescatter", arrays[rank], op, *factors))

    results = cluster.run(main)
    rows = even_rows(shape[0], size)
    whole, start = reduced(before, op, *factors), 0
    for rank, result in enumerate(results):
        assert result.sizes == rows
        assert result.output is not None
        assert result.output.dtype == dtype
        assert result.output.shape == (rows[rank], *shape[1:])
        assert_reduced(result.output, whole[start : start + rows[rank]])
        assert arrays[rank].tobytes() == before[rank].tobytes()
        start += rows[rank]
    cluster.leave()


@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_the_first_ranks_get_the_rows_that_are_left_over(eager_bytes: int) -> None:
    cluster = Cluster(4, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[int]:
        return (await collectives.submit(Request("x", "reducescatter", np.arange(6), Sum))).output.tolist()  # type: ignore[no-any-return]

    assert cluster.run(main) == [[0, 4], [8, 12], [16], [20]]


def test_a_group_of_different_types() -> None:
    cluster = Cluster(2, eager_bytes=0)

    async def main(rank: int, collectives: Collectives) -> list[list[float]]:
        arrays = [np.arange(4, dtype=np.float16), np.arange(2, dtype=np.int64), np.ones((3, 2))]
        futures = [
            collectives.submit(Request(f"x{i}", "reducescatter", array, Average, group="g", group_size=3))
            for i, array in enumerate(arrays)
        ]
        return [result.output.tolist() for result in await all_of(futures)]

    assert cluster.run(main) == [[[0, 1], [0], [[1, 1], [1, 1]]], [[2, 3], [1], [[1, 1]]]]
    cluster.leave()


@pytest.mark.parametrize("op", [Min, Max, Product, Adasum])
def test_only_average_and_sum(op: ReduceOp) -> None:
    with pytest.raises(ValueError, match=f"only Average and Sum are supported, not {op.name.capitalize()}"):
        Request("x", "reducescatter", np.ones(3), op)


def test_scalars_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rank-zero tensor .a scalar. cannot be scattered"):
        Request("x", "reducescatter", np.array(1.0))


@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_different_shapes_fail_on_all(eager_bytes: int) -> None:
    cluster = Cluster(3, eager_bytes=eager_bytes)
    text = (
        "Mismatched reducescatter tensor shapes for 'x': ranks 0, 2 submitted shape .4., but rank 1 submitted shape .5."
    )

    async def main(rank: int, collectives: Collectives) -> int:
        with pytest.raises(HorovodInternalError, match=text):
            await collectives.submit(Request("x", "reducescatter", np.ones(4 + (rank == 1)), Sum))
        return int((await collectives.submit(Request("x", "reducescatter", np.ones(3), Sum))).output[0])

    assert cluster.run(main) == [3] * 3
    cluster.leave()


def test_those_who_are_left_share_the_rows() -> None:
    cluster = Cluster(3, eager_bytes=0)

    async def main(rank: int, collectives: Collectives) -> list[float]:
        if rank == 1:
            await collectives.depart()
            return []
        await cluster.endpoints[rank].sleep(0.1)
        result = await collectives.submit(Request("x", "reducescatter", np.arange(3.0), live_only=True))
        assert result.ranks == (0, 2)
        return result.output.tolist()  # type: ignore[no-any-return]

    assert cluster.run(main) == [[0, 1], [], [2]]
