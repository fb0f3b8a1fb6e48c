"""How long simulated workers compute, and the cores that they may share for it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hvd_gossip.transport.simulated_links import Distribution, draw


@dataclass(frozen=True)
class ComputeModel:
    """How long a worker computes for a step: mean * jitter * its slowness, and then `cpu` on a core of the host.

    Attributes:
        mean: seconds, for which nothing is needed that others have use for: an accelerator of the worker's own computes, say.
        jitter: distribution of a factor drawn for every step, such as `uniform(0.9, 1.1)` or `lognormal(1, 0.1)`.
        slow: factor of each slow rank.
        seed: seeds the jitter.
        cpu: seconds of each step, after those, on one of `cores`: the training thread's CPU time.
        background: seconds on one of them from the end of each step on, beside the worker's next one: the progress thread's.
        cores: of the one host that all workers are on. Who finds none free waits for its turn. 0: everybody has its own.
    """

    mean: float = 0.05
    jitter: Distribution = 1.0
    slow: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    cpu: float = 0.0
    background: float = 0.0
    cores: int = 0

    def times(self, rank: int) -> Iterator[float]:
        """Seconds of each step of a rank, less those on the shared cores, endlessly."""
        stream = random.Random(f"compute {self.seed} {rank}")
        mean = self.mean * self.slow.get(rank, 1.0)
        while True:
            yield mean * draw(self.jitter, stream)


class Cores:
    """The cores of one host, each doing one worker's work at a time, first come first served. Owner: the simulation.

    Args:
        count: how many; 0 is no bound.
    """

    def __init__(self, count: int) -> None:
        self._free_at = [0.0] * count

    def occupy(self, now: float, seconds: float) -> float:
        """Puts work in the queue at a time; returns in how many seconds it is done."""
        if not self._free_at:
            return seconds
        done = max(now, self._free_at[0]) + seconds
        heapq.heapreplace(self._free_at, done)
        return done - now
