"""Gossip in process sets that share ranks: each set keeps its own mass and comes to its own mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hvd_gossip.algorithms.base import Algorithm, Context
from hvd_gossip.algorithms.registry import find_algorithm
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.buffers.replica import Replica
from hvd_gossip.collectives import Collectives
from hvd_gossip.observe.counters import Counters
from hvd_gossip.simulate_problems import Vector
from hvd_gossip.topology import fit_topology, make_topology
from hvd_gossip.topology.placed import Placed
from hvd_gossip.transport.endpoint import ALGORITHM_BASE, ALGORITHM_STRIDE, Endpoint
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links, exponential

SETS = [(0, 2, 3), (1, 2, 4, 5), (0, 1, 2, 3, 4, 5), (5,)]
GOSSIP = ["dpsgd", "adpsgd", "sgp", "osgp", "agp"]


@dataclass
class Member:
    """A rank's part in a set."""

    algorithm: Algorithm
    x: Vector

    async def train(self, endpoint: Endpoint, steps: int) -> None:
        for _ in range(steps):
            await endpoint.sleep(endpoint.rng.uniform(0.01, 0.1))
            step = self.algorithm.step(lambda: None)
            for wait in step:
                await wait()

    async def leave(self) -> None:
        await self.algorithm.depart()
        self.algorithm.settle()


def member(name: str, endpoint: Endpoint, number: int, collectives: Collectives) -> Member:
    """A rank's replica in set `number`, started; the ranks' values are known to the test."""
    ranks = SETS[number]
    kind = find_algorithm(name)
    topology = fit_topology(make_topology(kind.default_topology, len(ranks)), kind.needs)
    x = np.random.default_rng((number, endpoint.rank)).standard_normal(6)
    context = Context(
        endpoint=endpoint,
        replica=Replica([x], 16),
        topology=Placed(topology, ranks),
        settings=MixingSettings(wait_timeout=1e3),
        channel=ALGORITHM_BASE + number * ALGORITHM_STRIDE,
        post=lambda function: function(),
        exact_average=collectives.exact_average,
        counters=Counters(),
    )
    algorithm = kind(context)
    algorithm.start()
    return Member(algorithm, x)


async def live(name: str, endpoint: Endpoint, collectives: Collectives, steps: int) -> dict[int, Vector]:
    """All of a rank's sets train side by side; then it departs from all."""
    mine = {n: member(name, endpoint, n, collectives) for n, ranks in enumerate(SETS) if endpoint.rank in ranks}
    for task in [endpoint.spawn(one.train(endpoint, steps)) for one in mine.values()]:
        await task
    for one in mine.values():
        await one.leave()
    return {number: one.x for number, one in mine.items()}


@pytest.mark.parametrize("name", GOSSIP)
@pytest.mark.parametrize("seed", range(3))
def test_sets_mix_among_themselves(name: str, seed: int) -> None:
    world = SimulatedWorld(6, links=Links(delay=exponential(0.01)), seed=seed)
    tasks = [
        endpoint.spawn(live(name, endpoint, Collectives(endpoint), 60), f"rank {endpoint.rank}")
        for endpoint in world.endpoints
    ]
    world.run(tasks)
    world.run()
    results = [task.result() for task in tasks]
    for number, ranks in enumerate(SETS):
        values = np.stack([np.random.default_rng((number, rank)).standard_normal(6) for rank in ranks])
        after = np.stack([results[rank][number] for rank in ranks])
        apart = np.abs(after - after.mean(axis=0)).max()
        assert apart < 0.05
        # What push-sum keeps is the mean by its weights, which lies among the workers as the plain one does.
        tolerance = 1e-12 + (apart if name in ("osgp", "agp") else 0.0)
        np.testing.assert_allclose(after.mean(axis=0), values.mean(axis=0), rtol=0, atol=tolerance)
