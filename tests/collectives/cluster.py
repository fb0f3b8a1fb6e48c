"""Collectives on every rank of a simulated world, and what their results are compared with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from hvd_gossip.collectives import Collectives, ReduceOp
from hvd_gossip.transport.endpoint import Array
from hvd_gossip.transport.simulated import SimulatedEndpoint, SimulatedWorld
from hvd_gossip.transport.simulated_links import Links, exponential

T = TypeVar("T")
Main = Callable[[int, Collectives], Awaitable[T]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALVES = (np.dtype(np.float16), BFLOAT16)
DTYPES = [np.dtype(code) for code in "bhilqBHILQefdgFD"] + [BFLOAT16]
"""Every NumPy number type, and bfloat16."""


def adversarial_world(size: int, seed: int) -> SimulatedWorld:
    """A world whose messages are delayed at random, and whose arrays are read at random moments while being sent."""
    return SimulatedWorld(
        size,
        links=Links(latency=1e-6, bandwidth=1e9, delay=exponential(50e-6)),
        seed=seed,
        eager_limit=(0, 4096, float("inf"))[seed % 3],
        snapshot="random",
    )


class Cluster:
    """`size` ranks with collectives.

    Args:
        endpoint_of: what the ranks have of their endpoints.
        options: of Collectives.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        world: SimulatedWorld | None = None,
        endpoint_of: Callable[[SimulatedEndpoint], Any] = lambda endpoint: endpoint,
        **options: Any,
    ) -> None:
        self.world = world or adversarial_world(size, seed)
        self.endpoints: list[SimulatedEndpoint] = [endpoint_of(endpoint) for endpoint in self.world.endpoints]
        self.collectives = [Collectives(endpoint, **options) for endpoint in self.endpoints]
        for collectives in self.collectives:
            collectives.start()

    def run(self, main: Main[T]) -> list[T]:
        """Runs `main(rank, collectives)` on every rank; returns what each returned."""
        tasks = [
            endpoint.spawn(_call(main, endpoint.rank, collectives), "main")
            for endpoint, collectives in zip(self.endpoints, self.collectives, strict=True)
        ]
        self.world.run(tasks)
        return [task.result() for task in tasks]

    def leave(self) -> None:
        """All ranks depart; fails if anything is left that waits or moves."""
        self.run(lambda _, collectives: collectives.depart())
        self.world.run()


async def _call(main: Main[T], rank: int, collectives: Collectives) -> T:
    return await main(rank, collectives)


def values(dtype: np.dtype[Any], shape: int | tuple[int, ...], seed: int) -> Array:
    """Random numbers of a type, small enough that a few of them can be added and multiplied exactly or nearly so."""
    stream = np.random.default_rng(seed)
    if dtype.kind in "biu":
        return np.asarray(stream.integers(0, 2 if dtype.kind == "b" else 5, shape)).astype(dtype)
    numbers = np.asarray(stream.uniform(0.5, 1.5, shape))
    if dtype.kind == "c":
        numbers = np.asarray(numbers + 1j * stream.uniform(-1, 1, shape))
    return numbers.astype(dtype)


def reduced(arrays: Sequence[Array], op: ReduceOp, prescale: float = 1.0, postscale: float = 1.0) -> Array:
    """What allreduce documents, computed plainly, in the arrays' type or wider."""
    dtype = arrays[0].dtype
    wide = dtype if dtype.kind in "biu" else np.dtype(np.complex128 if dtype.kind == "c" else np.float64)
    parts = [_cut(array.astype(wide), prescale) for array in arrays]
    total = parts[0]
    for part in parts[1:]:
        total = _FUNCTIONS[op](total, part)
    total = _cut(total, postscale)
    if op is ReduceOp.AVERAGE:
        total = (total // len(parts) if dtype.kind in "iu" else total / len(parts)).astype(wide)
    return total


_FUNCTIONS: dict[ReduceOp, Callable[[Array, Array], Array]] = {
    ReduceOp.AVERAGE: np.add,
    ReduceOp.SUM: np.add,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.PRODUCT: np.multiply,
}


def _cut(array: Array, factor: float) -> Array:
    return array if factor == 1.0 else (array * factor).astype(array.dtype)


def assert_reduced(actual: Array, wanted: Array) -> None:
    """Equal for integers; for floating types within a few roundings of the actual type."""
    if actual.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, wanted)
        return
    real = actual.real.dtype if actual.dtype.kind == "c" else actual.dtype
    epsilon = float(ml_dtypes.finfo(real).eps) if real in HALVES else float(np.finfo(real).eps)
    tolerance = max(epsilon, 1e-16) * (1 if real in HALVES else 100)
    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    np.testing.assert_allclose(actual.astype(wide), wanted, rtol=tolerance, atol=tolerance)


def assert_same_bits(results: Sequence[Array]) -> None:
    """All ranks have the very same bits; of the bytes that pad a long double nothing is asked."""
    for result in results:
        assert result.dtype == results[0].dtype
        if result.dtype.char in "gG":
            np.testing.assert_array_equal(result, results[0])
        else:
            assert result.tobytes() == results[0].tobytes()


reductions = st.tuples(st.sampled_from(DTYPES), st.sampled_from([op for op in ReduceOp if op is not ReduceOp.ADASUM]))
"""Hypothesis: element type and operation; Adasum, which is no fold, has tests of its own."""
