"""Allreduce without the controller, both algorithms: every size, length, type and cut against NumPy."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives import Average, Max, Product, ReduceOp, Sum, allreduce
from hvd_gossip.collectives.flow import Transfer
from hvd_gossip.collectives.halving import HalvingAllreduce
from hvd_gossip.collectives.memory import HostMemory
from hvd_gossip.collectives.reduce import HALVING_BYTES, Algorithm, choose_algorithm, reduce_vectors
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.ring import RingAllreduce
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.errors import PeerFailedError
from hvd_gossip.transport.endpoint import COLLECTIVE_BASE
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import (
    BFLOAT16,
    adversarial_world,
    assert_reduced,
    assert_same_bits,
    reduced,
    reductions,
    values,
)


def run(
    world: SimulatedWorld,
    sources: list[list[Any]],
    op: ReduceOp,
    *,
    in_place: bool = False,
    chunk_bytes: int = 64,
    scales: tuple[float, float] = (1.0, 1.0),
    algorithm: Algorithm | None = None,
) -> list[list[Any]]:
    """Reduces each rank's list of arrays; returns each rank's list of results."""
    ranks = range(world.size)
    targets = [arrays if in_place else [np.empty_like(array) for array in arrays] for arrays in sources]
    tasks = []
    for endpoint, source, target in zip(world.endpoints, sources, targets, strict=True):
        given, wanted = Vector(source), Vector(target)
        reduction = Reduction(source[0], op, world.size, *scales)
        transfer = Transfer(endpoint, ranks, COLLECTIVE_BASE, chunk_bytes)
        coroutine = reduce_vectors(transfer, given, wanted, reduction, algorithm)
        tasks.append(endpoint.spawn(coroutine))
    world.run(tasks)
    world.run()
    return targets


@given(
    size=st.integers(1, 9),
    lengths=st.lists(st.integers(0, 200), min_size=1, max_size=4),
    reduction=reductions,
    in_place=st.booleans(),
    algorithm=st.sampled_from([RingAllreduce, HalvingAllreduce]),
    seed=st.integers(0, 1000),
)
def test_matches_numpy_on_all_ranks_alike(
    size: int, lengths: list[int], reduction: tuple[Any, ReduceOp], in_place: bool, algorithm: Algorithm, seed: int
) -> None:
    dtype, op = reduction
    if dtype.kind == "b" and op is Average:
        op = Sum
    if algorithm is HalvingAllreduce:
        size = 1 << (size.bit_length() - 1)
    sources = [
        [values(dtype, length, seed + 10 * rank + i) for i, length in enumerate(lengths)] for rank in range(size)
    ]
    copies = [[array.copy() for array in arrays] for arrays in sources]
    results = run(adversarial_world(size, seed), sources, op, in_place=in_place, algorithm=algorithm)
    for index in range(len(lengths)):
        assert_same_bits([result[index] for result in results])
        assert_reduced(results[0][index], reduced([arrays[index] for arrays in copies], op))
    if not in_place:
        for arrays, before in zip(sources, copies, strict=True):
            for array, copy in zip(arrays, before, strict=True):
                assert array.tobytes() == copy.tobytes()


@given(
    size=st.integers(1, 5),
    reduction=reductions,
    scales=st.tuples(st.sampled_from([1.0, 0.5, 2.0]), st.sampled_from([1.0, 0.25, 3.0])),
    seed=st.integers(0, 1000),
)
def test_scales(size: int, reduction: tuple[Any, ReduceOp], scales: tuple[float, float], seed: int) -> None:
    dtype, op = reduction
    if dtype.kind == "b":
        dtype = np.dtype(np.int32)
    sources = [[values(dtype, 70, seed + rank)] for rank in range(size)]
    results = run(adversarial_world(size, seed), sources, op, scales=scales)
    assert_same_bits([result[0] for result in results])
    assert_reduced(results[0][0], reduced([arrays[0] for arrays in sources], op, *scales))


CASES: list[tuple[Algorithm, int]] = [
    *((RingAllreduce, size) for size in (2, 3, 7)),
    *((HalvingAllreduce, size) for size in (2, 4, 8)),
]


@pytest.mark.parametrize(("algorithm", "size"), CASES)
def test_half_sums_round_once(algorithm: Algorithm, size: int) -> None:
    """1 + 2^-9 a rank: in bfloat16 every partial sum would be rounded to the wrong side; in float32 none is."""
    one = np.full(50, 1 + 2**-7, BFLOAT16)
    small = np.full(50, 2**-9, BFLOAT16)
    results = run(SimulatedWorld(size), [[one]] + [[small]] * (size - 1), Sum, algorithm=algorithm)
    wanted = np.float32(1 + 2**-7 + (size - 1) * 2**-9).astype(BFLOAT16)
    assert (results[0][0] == wanted).all()


def test_average_of_equal_values_is_that_value() -> None:
    for size in (3, 5, 7):
        array = np.full(100, 0.1, np.float32)
        results = run(SimulatedWorld(size), [[array]] * size, Average)
        np.testing.assert_allclose(results[0][0], array, rtol=1.2e-7)


def test_public_function_reduces_in_place_among_some_ranks() -> None:
    world = SimulatedWorld(5)
    ranks = [3, 1, 4]
    arrays = {rank: np.full(300_000, rank, np.int64) for rank in ranks}
    world.run([world.endpoints[r].spawn(allreduce(world.endpoints[r], arrays[r], ranks, 9000, Max)) for r in ranks])
    assert all((array == 4).all() for array in arrays.values())


@pytest.mark.parametrize("algorithm", [RingAllreduce, HalvingAllreduce])
def test_64_ranks(algorithm: Algorithm) -> None:
    world = adversarial_world(64, 3)
    sources = [[np.full(1000, rank, np.float64)] for rank in range(64)]
    results = run(world, sources, Average, algorithm=algorithm)
    assert all((result[0] == 31.5).all() for result in results)


@pytest.mark.parametrize("algorithm", [RingAllreduce, HalvingAllreduce])
def test_many_lanes_use_few_buffers(algorithm: Algorithm) -> None:
    """Memory besides the arrays does not grow with them: buffers are used again."""
    peaks = []
    for length in (20_000, 200_000):
        made: list[int] = []
        world = SimulatedWorld(4)
        sources = [[np.ones(length, np.float32)] for _ in range(4)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HostMemory, "empty", partial(_count, made))
            run(world, sources, Sum, chunk_bytes=1024, algorithm=algorithm)
        peaks.append(sum(made))
    assert 0 < peaks[0] == peaks[1] <= 4 * 13 * 1024


def _count(made: list[int], length: int, dtype: Any) -> Any:
    """NumPy's `empty`, counting bytes."""
    array = np.empty(length, dtype)
    made.append(array.nbytes)
    return array


def test_product_of_zero_length() -> None:
    results = run(SimulatedWorld(4), [[np.empty((0,), np.float32)]] * 4, Product)
    assert all(result[0].shape == (0,) for result in results)


@pytest.mark.parametrize("length", [500_000, 3000])
@pytest.mark.parametrize(
    ("algorithm", "size", "victim"), [(RingAllreduce, 3, 1), (RingAllreduce, 3, 2), (HalvingAllreduce, 2, 1)]
)
def test_a_death_fails_the_others(victim: int, length: int, algorithm: Algorithm, size: int) -> None:
    """Whoever exchanges with it learns of the death from its receives and sends; nobody returns a result."""
    world = SimulatedWorld(size)
    tasks = []
    for endpoint in world.endpoints:
        vector = Vector([np.ones(length, np.float32)])
        reduction = Reduction(vector.first, Sum, size)
        transfer = Transfer(endpoint, range(size), COLLECTIVE_BASE)
        coroutine = reduce_vectors(transfer, vector, vector, reduction, algorithm)
        tasks.append(endpoint.spawn(coroutine))
    for task in tasks:
        task.add_callback(lambda _: None)
    world.kill(victim, at=15e-6)
    world.run()
    errors = [task.error() for task in tasks if task is not tasks[victim]]
    assert [type(error) for error in errors] == [PeerFailedError] * (size - 1)
    assert str(errors[0]) == f"rank {victim} failed or cannot be reached"


@pytest.mark.parametrize("algorithm", [RingAllreduce, HalvingAllreduce])
def test_buffers_are_free_as_soon_as_the_transfer_is_done(algorithm: Algorithm) -> None:
    """Not at the next garbage collection: the next transfer is to get memory that is mapped already."""
    made: list[weakref.ref[Any]] = []
    empty = HostMemory.empty

    def remember(memory: HostMemory, length: int, dtype: Any) -> Any:
        array = empty(memory, length, dtype)
        made.append(weakref.ref(array))
        return array

    gc.collect()
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HostMemory, "empty", remember)
            run(SimulatedWorld(4), [[np.ones(5000, np.float32), np.ones(3, np.float32)]] * 4, Sum, algorithm=algorithm)
    finally:
        gc.enable()
    assert made
    assert all(reference() is None for reference in made)


def test_halving_refuses_what_is_no_power_of_two() -> None:
    vector = Vector([np.ones(3)])
    transfer = Transfer(SimulatedWorld(3).endpoints[0], range(3), COLLECTIVE_BASE)
    with pytest.raises(ValueError, match="3 ranks are not a power of two"):
        HalvingAllreduce(transfer, vector, vector, Reduction(vector.first, Sum, 3))


def test_choice_of_algorithm() -> None:
    assert choose_algorithm(4, 1 << 40) is HalvingAllreduce
    assert choose_algorithm(3, 1) is RingAllreduce
    assert choose_algorithm(2, HALVING_BYTES + 1) is RingAllreduce
    assert choose_algorithm(16, HALVING_BYTES) is HalvingAllreduce
    assert choose_algorithm(16, HALVING_BYTES + 1) is RingAllreduce
