"""AllReduce-SGD: every step averages the gradients of all workers exactly, as Horovod does.

    x(k+1) = x(k) - lr * (1/n) sum_j g_j(x(k)).

Ring or direct reduce-scatter and allgather: 2 (n-1)/n of the gradient's bytes a worker (Patarasuk and Yuan, "Bandwidth optimal
all-reduce algorithms for clusters of workstations", JPDC 2009). Every worker waits for the slowest one in every step.

In real training the collectives do it, gradient by gradient and by name, while backward goes on; `average_gradients` is the same
mean of flat gradients for whoever has them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from hvd_gossip.algorithms.base import Algorithm, Context, Wait
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")


class AllReduce(Algorithm):
    """x <- x + u(mean of all gradients). Memory: none beside the gradients."""

    name = "allreduce"
    paper = "Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, JPDC 2009"
    averages = "gradients"
    synchronous = True
    needs = "none"
    default_topology = "complete"
    memory = "none"
    good_for = "fast networks, equal workers; exactly Horovod's results"
    bad_for = "stragglers and slow links: everybody waits in every step"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._rounds = 0

    def start(self) -> None:
        """Nothing runs in the background."""

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        yield from ()
        return update()

    async def average_gradients(self, gradients: list[Array]) -> int:
        """Engine: replaces flat gradients, in place, by their mean over the live workers; returns how many."""
        self._rounds += 1
        name = f"allreduce.{self.context.channel}.{self.phase}.{self._rounds}"
        return await self.context.exact_average(name, gradients)

    async def pause(self) -> None:
        """Nothing is under way between two steps."""

    async def rest(self) -> None:
        """Nothing is under way between two steps."""

    async def resume(self, phase: int | None = None) -> None:
        self.phase = self.phase + 1 if phase is None else phase
        self._rounds = 0

    async def depart(self) -> None:
        """The collectives announce the departure."""
