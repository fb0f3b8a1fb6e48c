"""D-PSGD: decentralized parallel stochastic gradient descent.

Lian, Zhang, Zhang, Hsieh, Zhang, Liu: "Can Decentralized Algorithms Outperform Centralized Algorithms? A Case Study for
Decentralized Parallel Stochastic Gradient Descent", NeurIPS 2017, Algorithm 1.

    x_i(k+1) = sum_j W_ij x_j(k) + u_i(x_i(k)),          u_i = -lr g_i(x_i(k)) for plain SGD,

W symmetric and doubly stochastic. The gradient is taken at x_i(k), before mixing, so the exchange of x(k) runs beside it
(mixing_order "overlap"). The paper's remark that both lines of the algorithm may be exchanged is mixing_order "sequential":

    x_i(k+1) = sum_j W_ij (x_j(k) + u_j(x_j(k))),

which on the complete graph is centralized SGD. The correction is c_i = sum_j W_ij (q_j - q_i), q being x as it travelled:
an edge adds opposite amounts at its two ends, so the sum over the workers stands still whatever the wire's type, and an edge
that is missing (a worker paused or gone) or refused (not finite) is missing on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from hvd_gossip.algorithms.base import Needs
from hvd_gossip.algorithms.means import mean_of_finite
from hvd_gossip.algorithms.synchronous import Round, SynchronousMixing
from hvd_gossip.buffers.arrays import add_scaled
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")


class DPSGD(SynchronousMixing):
    """x_i <- sum_j W_ij x_j + u_i, exchanged beside the gradient. Memory: one correction."""

    name = "dpsgd"
    paper = "Lian et al., Can Decentralized Algorithms Outperform Centralized Algorithms?, NeurIPS 2017"
    needs: ClassVar[Needs] = "symmetric"
    default_topology = "random-matching"
    good_for = "slow or high-latency networks, workers of equal speed"
    bad_for = "a straggler (its neighbours wait), strongly skewed data"

    def apply(self, update: Callable[[], R]) -> R:
        result = update()
        self.context.replica.fold()
        return result

    def announcement(self, weight: float) -> bytes:
        return b""

    def mix(self, round_: Round, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        for peer, theirs in arrived.items():
            if not chunk.average(round_.in_weights[peer], theirs, mine):
                self.context.counters.refuse(peer)

    async def correct_to_mean(self, name: str) -> None:
        replica = self.context.replica
        for chunk in replica.chunks:
            chunk.correction[...] = chunk.source
        await mean_of_finite(self.context, name, replica.corrections, [chunk.correction for chunk in replica.chunks])
        self.remember(replica.corrections)
        for chunk in replica.chunks:
            add_scaled(chunk.correction, -1.0, chunk.source)
            chunk.pending = True

    def remember(self, mean: Sequence[Array]) -> None:
        """Engine: the exact mean over the live workers, one array a flat buffer, before it is used otherwise."""
