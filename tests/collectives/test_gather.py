"""The ring allgather without the controller."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives.flow import Transfer
from hvd_gossip.collectives.gather import ring_allgather
from hvd_gossip.transport.endpoint import COLLECTIVE_BASE
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import DTYPES, adversarial_world, assert_same_bits, values


def gather(world: SimulatedWorld, blocks: list[Any], ranks: list[int], chunk_bytes: int = 64) -> list[Any]:
    """Runs it among some ranks; returns each one's output."""
    lengths = [len(block) for block in blocks]
    outputs = [np.empty(sum(lengths), blocks[0].dtype) for _ in ranks]
    tasks = []
    for rank, block, output in zip(ranks, blocks, outputs, strict=True):
        endpoint = world.endpoints[rank]
        transfer = Transfer(endpoint, ranks, COLLECTIVE_BASE, chunk_bytes)
        tasks.append(endpoint.spawn(ring_allgather(transfer, block, output, lengths)))
    world.run(tasks)
    world.run()
    return outputs


@given(
    lengths=st.lists(st.integers(0, 120), min_size=1, max_size=9),
    dtype=st.sampled_from([np.dtype(bool), *DTYPES]),
    seed=st.integers(0, 1000),
)
def test_every_rank_gets_all_blocks_in_order(lengths: list[int], dtype: np.dtype[Any], seed: int) -> None:
    blocks = [values(dtype, length, seed + rank) for rank, length in enumerate(lengths)]
    outputs = gather(adversarial_world(len(lengths), seed), blocks, list(range(len(lengths))))
    assert_same_bits([np.concatenate(blocks), *outputs])


def test_order_is_that_of_the_ranks_given() -> None:
    blocks = [np.full(3, rank) for rank in (4, 0, 2)]
    outputs = gather(SimulatedWorld(5), blocks, [4, 0, 2])
    assert all(output.tolist() == [4, 4, 4, 0, 0, 0, 2, 2, 2] for output in outputs)


def test_many_chunks_of_64_ranks() -> None:
    blocks = [np.full(rank % 7 * 20, rank, np.int16) for rank in range(64)]
    outputs = gather(adversarial_world(64, 1), blocks, list(range(64)))
    assert all((output == np.concatenate(blocks)).all() for output in outputs)
