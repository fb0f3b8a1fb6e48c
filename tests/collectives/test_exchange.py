"""Pairwise exchanges as transfers, without the controller: order, failures, and nothing left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives.exchange import alltoall, exchange_counts, reduce_scatter
from hvd_gossip.collectives.flow import Transfer
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.request import Average, Sum
from hvd_gossip.errors import TransportError
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import adversarial_world

CHANNEL = 9000


def run(world: SimulatedWorld, ranks: list[int], main: Callable[[Transfer], Awaitable[object]]) -> list[object]:
    async def call(transfer: Transfer) -> object:
        return await main(transfer)

    tasks = [world.endpoints[rank].spawn(call(Transfer(world.endpoints[rank], ranks, CHANNEL, 64))) for rank in ranks]
    world.run(tasks)
    return [task.result() for task in tasks]


@given(size=st.integers(1, 9), seed=st.integers(0, 999))
def test_counts(size: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).integers(0, 2**40, (size, size))
    world = adversarial_world(size, seed)
    assert run(world, list(range(size)), lambda one: exchange_counts(one, matrix[one.position])) == matrix.T.tolist()
    world.run()


def test_blocks_come_in_the_order_of_the_ranks_given() -> None:
    ranks = [4, 0, 2]

    async def main(transfer: Transfer) -> list[int]:
        source, output = np.arange(60) + 100 * transfer.endpoint.rank, np.empty(60, np.int64)
        await alltoall(transfer, source, output, [20, 20, 20], [20, 20, 20])
        return output[::20].tolist()  # type: ignore[no-any-return]

    assert run(SimulatedWorld(5), ranks, main) == [[400 + 20 * i, 20 * i, 200 + 20 * i] for i in range(3)]


def test_half_types_are_added_in_float32_and_rounded_once() -> None:
    """2048 + 1 is 2048 in float16, and 2048 + 1 + 1 + 1 + 1 is not."""

    async def main(transfer: Transfer) -> list[float]:
        source = np.full(10, 2048 if transfer.position == 0 else 1, np.float16)
        output = np.empty(2, np.float16)
        await reduce_scatter(transfer, source, output, [2] * 5, Reduction(source, Sum, 5))
        return output.tolist()  # type: ignore[no-any-return]

    assert run(SimulatedWorld(5), list(range(5)), main) == [[2052, 2052]] * 5


def test_the_source_is_left_as_it_is() -> None:
    async def main(transfer: Transfer) -> list[int]:
        source, output = np.arange(6), np.empty(3, np.int64)
        await reduce_scatter(transfer, source, output, [3, 3], Reduction(source, Average, 2, prescale=4.0))
        return [*source.tolist(), *output.tolist()]

    assert run(adversarial_world(2, 1), [0, 1], main) == [[0, 1, 2, 3, 4, 5, 0, 4, 8], [0, 1, 2, 3, 4, 5, 12, 16, 20]]


@pytest.mark.parametrize("at", [0.0, 2e-5, 1e-4])
@pytest.mark.parametrize("kind", ["alltoall", "reduce_scatter", "counts"])
def test_a_dead_peer_is_an_error(kind: str, at: float) -> None:
    world = SimulatedWorld(3)

    async def main(transfer: Transfer) -> str:
        source, output = np.ones(300_000), np.empty(100_000)
        try:
            if kind == "alltoall":
                await alltoall(transfer, source, np.empty(300_000), [100_000] * 3, [100_000] * 3)
            elif kind == "reduce_scatter":
                await reduce_scatter(transfer, source, output, [100_000] * 3, Reduction(source, Sum, 3))
            else:
                await transfer.endpoint.sleep(2e-4)
                await exchange_counts(transfer, [1, 2, 3])
        except TransportError as error:
            return str(error)
        return "no error"

    tasks = [endpoint.spawn(main(Transfer(endpoint, range(3), CHANNEL))) for endpoint in world.endpoints]
    world.kill(2, at=at)
    world.run(tasks[:2])
    assert all("rank 2" in task.result() for task in tasks[:2])
