"""A2CiD2: asynchronous pairwise averaging with a continuous local momentum.

Nabli, Belilovsky, Oyallon: "A2CiD2: Accelerating Asynchronous Communication in Decentralized Deep Learning", NeurIPS 2023,
equation 4 and algorithm 1. Each worker has a companion x~ of its parameters. Between two events both flow together,

    d(x_i, x~_i) = eta (x~_i - x_i, x_i - x~_i) dt,      so that after dt   (x, x~) <- exp(eta dt [[-1, 1], [1, -1]]) (x, x~),

an update u goes to both, and an exchange of i and j takes a different share of m = x_i - x_j from each:

    x_i <- x_i - alpha m,   x~_i <- x~_i - alpha~ m,
    alpha = 1/2,   alpha~ = sqrt(chi_1 / chi_2) / 2,   eta = 1 / (2 sqrt(chi_1 chi_2)).

Time is counted in steps of the typical worker; chi_1 and chi_2 are of the graph of pairs (see `topology.pair_rates`). Consensus
takes sqrt(chi_1 chi_2) instead of chi_1 units of time: on a ring of n workers n^1.5 instead of n^2.

Everything else, exchanges and their order, is AD-PSGD's (`adpsgd.py`), which this is without momentum. What is kept is not x~
but d = x~ - x, where x counts with its correction c: the flow moves a share of d into c, an update leaves d as it is, and a torn
read of x never reaches d. Each worker has its own clock, so only what no clock touches stands still to rounding: the sum over
all workers of (x + c + x~)/2 = x + c + d/2 changes by the updates alone, and that is where a worker ends that is left alone
(`settle`), and what exact averages are of. With one common clock the sums of x and of x~ each do: the sum of d, zero at first,
is moved by opposite amounts at the two ends of an exchange, and flows to zero in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from hvd_gossip.algorithms.adpsgd import ADPSGD
from hvd_gossip.algorithms.base import Context, Wait
from hvd_gossip.buffers.arrays import add_scaled, finite_difference_of, scale
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.pair_rates import chi
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")
ALPHA = 0.5


def momentum(topology: Topology, period: int, factor: float) -> tuple[float, float]:
    """(eta, alpha~), eta a step of the typical worker.

    Args:
        topology: who may average with whom.
        period: an initiator exchanges on every so many-th step.
        factor: of the eta that the paper gives; 0: no momentum, and so no difference between x and x~.

    Raises:
        TopologyError: there is no connected bipartite form.
    """
    if topology.size == 1 or factor == 0.0:
        return 0.0, ALPHA
    chi_1, chi_2 = chi(topology, 1 / period)
    return factor / (2 * math.sqrt(chi_1 * chi_2)), ALPHA * math.sqrt(chi_1 / chi_2)


class ACID(ADPSGD):
    """Pairwise averaging whose pull goes on after the exchange. Memory: one correction and one difference."""

    name = "acid"
    paper = "Nabli et al., A2CiD2: Accelerating Asynchronous Communication in Decentralized Deep Learning, NeurIPS 2023"
    heeds = ADPSGD.heeds | {"acid_momentum"}
    memory = "2 x"
    good_for = "as adpsgd, on sparse graphs of many workers, such as a large ring"
    bad_for = "small or well connected groups, where adpsgd comes to consensus as fast; results depend on timing"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = context.settings
        self._eta, self._alpha = momentum(context.topology, settings.mixing_period, settings.acid_momentum)
        self._apart = context.replica.companion()
        self._flowed: list[float | None] = [None] * len(context.replica.chunks)
        """Until when each chunk's flow is done, under its lock; None while its d is zero."""
        self._unit = 0.0

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        now, replica = self.context.endpoint.now(), self.context.replica
        for chunk in replica.chunks:
            with replica.space.training(chunk):
                self._flow(chunk, now)
        return (yield from super().step(update))

    def before_sending(self, chunk: Chunk) -> None:
        self._unit = self._pace.typical()
        with self.context.replica.space.engine(chunk):
            self._flow(chunk, self.context.endpoint.now())

    def average_pair(self, chunk: Chunk, mine: Array, theirs: Array) -> bool:
        difference = finite_difference_of(theirs, mine, chunk.x.dtype)
        if difference is None:
            return False
        with self.context.replica.space.engine(chunk):
            add_scaled(chunk.correction, ALPHA, difference)
            chunk.pending = True
            if self._eta:
                add_scaled(self._apart.chunks[chunk.index], self._alpha - ALPHA, difference)
                self._flowed[chunk.index] = self._flowed[chunk.index] or self.context.endpoint.now()
        return True

    def settle(self) -> None:
        """Where the flow would end: c <- c + d/2, d <- 0."""
        replica = self.context.replica
        for chunk, apart in zip(replica.chunks, self._apart.chunks, strict=True):
            with replica.space.training(chunk):
                if self._flowed[chunk.index] is not None:
                    add_scaled(chunk.correction, 0.5, apart)
                    chunk.pending = True
                    apart.fill(0)
                    self._flowed[chunk.index] = None
        super().settle()

    def preview(self) -> None:
        super().preview()
        replica = self.context.replica
        for chunk, apart in zip(replica.chunks, self._apart.chunks, strict=True):
            with replica.space.training(chunk):
                if self._flowed[chunk.index] is not None:
                    add_scaled(chunk.x, 0.5, apart)

    def state_dict(self) -> dict[str, Any]:
        return {"companion": self._apart.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._apart.load(state["companion"], "the companions")
        self._flowed = [self.context.endpoint.now()] * len(self._flowed)

    def _flow(self, chunk: Chunk, now: float) -> None:
        """Under the chunk's lock: c <- c + (1 - e)/2 d, d <- e d, with e = exp(-2 eta dt)."""
        since = self._flowed[chunk.index]
        if since is None or not self._unit or now <= since:
            return
        remains = math.exp(-2 * self._eta * (now - since) / self._unit)
        add_scaled(chunk.correction, (1 - remains) / 2, self._apart.chunks[chunk.index])
        scale(self._apart.chunks[chunk.index], remains)
        chunk.pending = True
        self._flowed[chunk.index] = now
