"""Workers of a simulated world that share pools: what the tests of sharing run and look at."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hvd_gossip.sharing import PoolKey, PoolSpec, SharedPool, SharingStats, WorkSharing
from hvd_gossip.transport.endpoint import Endpoint
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links

NAME = "train"


@dataclass
class Shift:
    """A run of `epochs` epochs of `units` units by workers that take `batch` of them a step.

    Attributes:
        step_times: seconds a step, by rank, at least.
        jitter: how much longer a step takes, in the mean, as a share of it (exponentially distributed, seeded).
        quits: after how many steps (over all epochs) a rank departs; the others go through all epochs.
        depart: whether these depart then, too.
        handed: the units that each (epoch, rank) was given, in order.
        ended: when each (epoch, rank) was told that the epoch is over, virtual seconds.
        last_taken: when the last unit of each epoch left the pool, virtual seconds.
        departed: when each rank had nothing more to do.
    """

    step_times: Sequence[float]
    units: int
    batch: int = 1
    epochs: int = 1
    links: Links = field(default_factory=lambda: Links(latency=1e-3))
    seed: int = 0
    jitter: float = 0.0
    quits: Mapping[int, int] = field(default_factory=dict)
    depart: bool = True

    def __post_init__(self) -> None:
        self.size = len(self.step_times)
        self.world = SimulatedWorld(self.size, links=self.links, seed=self.seed)
        self.services = [start_service(endpoint) for endpoint in self.world.endpoints]
        self.handed: dict[tuple[int, int], list[int]] = {}
        self.ended: dict[tuple[int, int], float] = {}
        self.last_taken: dict[int, float] = {}
        self.departed: dict[int, float] = {}
        self.tasks = [self.world.endpoints[rank].spawn(self._work(rank), "work") for rank in range(self.size)]

    def run(self) -> Shift:
        """Until every worker has departed and nothing is left to happen."""
        self.world.run(max_time=1e12)
        for task in self.tasks:
            if not task.done():
                raise AssertionError(f"a worker is still {task.waiting_for()} at {self.world.now} s")
            task.result()
        return self

    def run_until_ended(self, ranks: Sequence[int]) -> Shift:
        """Until these ranks are through all epochs."""
        missing = set(ranks)

        def ended() -> bool:
            while missing and (self.epochs - 1, next(iter(missing))) in self.ended:
                missing.pop()
            return not missing

        assert self.world.run(ended, max_time=1e12)
        return self

    def counts(self, epoch: int) -> Counter[int]:
        """How often each unit of an epoch was handed out."""
        return Counter(itertools.chain.from_iterable(units for (of, _), units in self.handed.items() if of == epoch))

    def stats(self) -> list[SharingStats]:
        return [service.stats() for service in self.services]

    def total(self, name: str) -> float:
        return float(sum(getattr(stats, name) for stats in self.stats()))

    async def _work(self, rank: int) -> None:
        endpoint, sharing = self.world.endpoints[rank], self.services[rank]
        steps_left = self.quits.get(rank, 10**9)
        rng = np.random.default_rng((self.seed, rank))
        for epoch in range(self.epochs):
            pool = await sharing.open(PoolKey(NAME, epoch), PoolSpec(self.units))
            mine = self.handed.setdefault((epoch, rank), [])
            while steps_left and await self._take_batch(sharing, pool, mine):
                steps_left -= 1
                await endpoint.sleep(self.step_times[rank] * (1 + self.jitter * rng.exponential()))
            if not steps_left:
                break
            self.ended[epoch, rank] = endpoint.now()
        if self.depart or rank in self.quits:
            await sharing.depart()
        self.departed[rank] = endpoint.now()

    async def _take_batch(self, sharing: WorkSharing, pool: SharedPool, mine: list[int]) -> bool:
        """As a data loader does: unit by unit until the batch is full or the epoch is over. False if that is at once."""
        before = len(mine)
        while len(mine) < before + self.batch and (interval := await sharing.take(pool)) is not None:
            mine.extend(range(*interval))
            self.last_taken[pool.key.epoch] = sharing.endpoint.now()
        return len(mine) > before


def start_service(endpoint: Endpoint, wait_timeout: float = 1800.0) -> WorkSharing:
    sharing = WorkSharing(endpoint, lambda command: command(), wait_timeout=wait_timeout)
    sharing.start()
    return sharing
