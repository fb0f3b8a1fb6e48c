"""Adaptive summation against the paper's recursion, written down plainly."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.collectives import Adasum, Collectives, Request
from hvd_gossip.collectives.adasum import AdasumAllreduce, adasum_all
from hvd_gossip.collectives.flow import Transfer
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.endpoint import Array
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import BFLOAT16, Cluster, assert_same_bits

FLOATING = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)]


def recursion(vectors: list[np.ndarray]) -> np.ndarray:
    """Adasum(g_1 ... g_2n) = Adasum(Adasum(g_1 ... g_n), Adasum(g_n+1 ... g_2n)) (equation 3)."""
    if len(vectors) == 1:
        return vectors[0]
    half = len(vectors) // 2
    a, b = recursion(vectors[:half]), recursion(vectors[half:])
    dot, aa, bb = float(a @ b), float(a @ a), float(b @ b)
    first = 1 - dot / (2 * aa) if aa else 1
    second = 1 - dot / (2 * bb) if bb else 1
    return first * a + second * b


def numbers(dtype: np.dtype[Any], shape: int | tuple[int, ...], seed: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(0.3, 1, shape)).astype(dtype)


def expected(arrays: list[Array]) -> np.ndarray:
    return recursion([array.astype(np.float64).reshape(-1) for array in arrays]).reshape(arrays[0].shape)


def assert_close(actual: Array, wanted: np.ndarray) -> None:
    """Within a few roundings of the type that it was computed in, and one of its own."""
    own = float(ml_dtypes.finfo(actual.dtype).eps)
    scale = float(np.abs(wanted).max(initial=0)) or 1.0
    tolerance = own if actual.dtype.itemsize == 2 else 50 * own
    np.testing.assert_allclose(actual.astype(np.float64), wanted, rtol=tolerance, atol=tolerance * scale)


@settings(max_examples=80)
@given(
    bits=st.integers(0, 4),
    dtype=st.sampled_from(FLOATING),
    shapes=st.lists(st.lists(st.integers(0, 9), max_size=2).map(tuple), min_size=1, max_size=5),
    seed=st.integers(0, 10_000),
    eager_bytes=st.sampled_from([0, 1 << 20]),
    chunk_bytes=st.sampled_from([16, 100, 1 << 20]),
    in_place=st.booleans(),
)
def test_every_tensor_by_itself_however_many_are_fused(
    bits: int,
    dtype: np.dtype[Any],
    shapes: list[tuple[int, ...]],
    seed: int,
    eager_bytes: int,
    chunk_bytes: int,
    in_place: bool,
) -> None:
    size = 1 << bits
    cluster = Cluster(size, seed, eager_bytes=eager_bytes, chunk_bytes=chunk_bytes)
    given_ = [[numbers(dtype, shape, 100 * rank + index) for index, shape in enumerate(shapes)] for rank in range(size)]

    async def main(rank: int, collectives: Collectives) -> list[Array]:
        arrays = [array.copy() for array in given_[rank]]
        futures = [
            collectives.submit(
                Request(f"x{i}", "allreduce", arrays[i], Adasum, output=arrays[i] if in_place else None, group="g",
                        group_size=len(arrays))
            )
            for i in cluster.endpoints[rank].rng.permutation(len(arrays))
        ]  # fmt: skip
        results = {future.what[1]: result.output for future, result in zip(futures, await all_of(futures), strict=True)}
        if not in_place:
            assert all((mine == theirs).all() for mine, theirs in zip(arrays, given_[rank], strict=True))
        return [results[f"x{i}"] for i in range(len(arrays))]

    results = cluster.run(main)
    for index in range(len(shapes)):
        assert_same_bits([result[index] for result in results])
        assert_close(results[0][index], expected([arrays[index] for arrays in given_]))
    cluster.leave()


@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_orthogonal_vectors_are_added_and_parallel_ones_averaged(eager_bytes: int) -> None:
    cluster = Cluster(2, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[list[float]]:
        orthogonal = np.array([1.0, 0.0] if rank else [0.0, 3.0])
        parallel = np.array([2.0, 4.0]) * (rank + 1)
        return [
            (await collectives.submit(Request(name, "allreduce", array, Adasum))).output.tolist()
            for name, array in (("orthogonal", orthogonal), ("parallel", parallel))
        ]

    assert cluster.run(main) == [[[1, 3], [3, 6]]] * 2


@pytest.mark.parametrize("eager_bytes", [0, 1 << 20])
def test_zeros_change_nothing_and_factors_are_applied_once(eager_bytes: int) -> None:
    cluster = Cluster(4, eager_bytes=eager_bytes)

    async def main(rank: int, collectives: Collectives) -> list[float]:
        array = np.array([1.0, -2.0, 3.0], np.float32) * (rank == 2)
        request = Request("x", "allreduce", array, Adasum, prescale=0.5, postscale=8.0)
        return (await collectives.submit(request)).output.tolist()  # type: ignore[no-any-return]

    assert cluster.run(main) == [[4, -8, 12]] * 4


def test_numbers_whose_squares_overflow_their_type() -> None:
    parts = [np.full(100, 3e4, np.float16), np.full(100, -3e4, np.float16)]
    out = np.empty(100, np.float16)
    adasum_all(parts, out, 1.0)
    assert (out == 0).all()
    adasum_all([parts[0]] * 2, out, 1.0)
    assert (out == parts[0]).all()


def test_a_part_of_the_ranks() -> None:
    """Among a process set's two ranks of three; three are no power of two."""
    cluster = Cluster(3)

    async def main(rank: int, collectives: Collectives) -> list[float]:
        with pytest.raises(NotImplementedError, match="Running Adasum with non-power of 2 ranks is not supported yet"):
            await collectives.submit(Request("x", "allreduce", np.ones(2), Adasum))
        number = await collectives.add_process_set([0, 2])
        if rank == 1:
            return [2.0, 2.0]
        request = Request("x", "allreduce", np.full(2, rank + 1.0), Adasum, process_set=number)
        return (await collectives.submit(request)).output.tolist()  # type: ignore[no-any-return]

    assert cluster.run(main) == [[2, 2]] * 3


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_only_floating_types(dtype: str) -> None:
    with pytest.raises(ValueError, match=f"Adasum takes floating elements, not {dtype}"):
        Request("x", "allreduce", np.ones(3, dtype), Adasum)


def test_the_transfer_refuses_what_is_no_power_of_two() -> None:
    world = SimulatedWorld(3)
    vector = Vector([np.ones(3)])
    with pytest.raises(ValueError, match="3 ranks are not a power of two"):
        AdasumAllreduce(Transfer(world.endpoints[0], range(3), 9000), vector, vector, 1.0)
