"""The tree broadcast without the controller."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives.broadcast import neighbours, tree_broadcast
from hvd_gossip.collectives.flow import Transfer
from hvd_gossip.errors import PeerFailedError
from hvd_gossip.transport.endpoint import COLLECTIVE_BASE
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links
from tests.collectives.cluster import adversarial_world


def broadcast(world: SimulatedWorld, arrays: list[Any], root: int, chunk_bytes: int = 64) -> None:
    """Runs it among all ranks."""
    ranks = range(world.size)
    world.run(
        endpoint.spawn(tree_broadcast(Transfer(endpoint, ranks, COLLECTIVE_BASE, chunk_bytes), array, root))
        for endpoint, array in zip(world.endpoints, arrays, strict=True)
    )
    world.run()


@given(data=st.data(), size=st.integers(1, 9), length=st.integers(0, 300), seed=st.integers(0, 1000))
def test_every_rank_gets_the_roots_array(data: st.DataObject, size: int, length: int, seed: int) -> None:
    root = data.draw(st.integers(0, size - 1))
    arrays = [np.random.default_rng(seed + rank).integers(0, 255, length, np.uint8) for rank in range(size)]
    wanted = arrays[root].copy()
    broadcast(adversarial_world(size, seed), arrays, root)
    assert all((array == wanted).all() for array in arrays)


@pytest.mark.parametrize("chain", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 8, 13, 64])
def test_neighbours_make_one_tree(size: int, chain: bool) -> None:
    parents = {position: neighbours(position, size, chain)[0] for position in range(size)}
    assert parents[0] == 0
    for position in range(1, size):
        parent = parents[position]
        assert parent < position
        assert position in neighbours(parent, size, chain)[1]
    edges = [child for position in range(size) for child in neighbours(position, size, chain)[1]]
    assert sorted(edges) == list(range(1, size))


def test_short_arrays_take_logarithmic_time() -> None:
    world = SimulatedWorld(64, links=Links(latency=1.0, bandwidth=float("inf")))
    broadcast(world, [np.zeros(10) for _ in range(64)], 5, chunk_bytes=1024)
    assert world.now == 6.0


def test_long_arrays_cross_each_link_once_and_in_a_pipeline() -> None:
    """1,000 chunks down a chain of 8, links busy one message at a time: hardly more than one link's time."""
    chunk, count = 1000, 1000
    links = Links(latency=0.0, bandwidth=chunk, serialize_send=True)
    world = SimulatedWorld(8, links=links, eager_limit=float("inf"))
    broadcast(world, [np.zeros(chunk * count, np.uint8) for _ in range(8)], 0, chunk_bytes=chunk)
    assert world.now == pytest.approx(count + 6, rel=0.01)


def test_a_dead_child_fails_the_root() -> None:
    world = SimulatedWorld(3)
    arrays = [np.zeros(10_000_000, np.uint8) for _ in range(3)]
    endpoint = world.endpoints[0]
    root = endpoint.spawn(tree_broadcast(Transfer(endpoint, range(3), COLLECTIVE_BASE), arrays[0], 0))
    world.kill(1, at=1e-4)
    with pytest.raises(PeerFailedError, match="rank 1"):
        world.run([root])
