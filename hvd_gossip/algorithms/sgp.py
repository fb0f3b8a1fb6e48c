"""SGP: stochastic gradient push, for directed and time-varying graphs.

Assran, Loizou, Ballas, Rabbat: "Stochastic Gradient Push for Distributed Deep Learning", ICML 2019, Algorithm 1; PushSum by
Kempe, Dobra, Gehrke (FOCS 2003); subgradient-push by Nedic and Olshevsky (IEEE TAC 2015).

Worker i keeps x_i and a weight w_i (1 at first); the model that trains is z_i = x_i / w_i. P(k) is column-stochastic: p_ji is
the share of i's mass that goes to j. The paper's order is mixing_order "sequential":

    x_i(k+1/2) = x_i(k) + u_i(z_i(k))
    x_i(k+1)   = sum_j p_ij x_j(k+1/2),    w_i(k+1) = sum_j p_ij w_j(k),    z_i(k+1) = x_i(k+1) / w_i(k+1).

With "overlap" (Nedic and Olshevsky's order) the mass of step k travels while the gradient at z_i(k) is computed:

    x_i(k+1) = sum_j p_ij x_j(k) + u_i(z_i(k)).

What is stored is z. The mass that stays and comes, relative to w_i(k+1) z_i(k), is the correction

    d_i = sum_{in j} p_ij w_j (q_j - z_i) + sum_{out j} p_ji w_i (z_i - q_i),         z_i(k+1) = z_i(k) + (d_i + u_i) / w_i(k+1),

q being z as it travelled. Each chunk is a push-sum of its own with its own weight, so that a chunk that is not finite can be
refused: its receiver adds neither value nor weight, its sender, by the same test of the same bytes, keeps both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.means import mean_of_finite
from hvd_gossip.algorithms.pushsum import restored_weights, weighted_average
from hvd_gossip.algorithms.synchronous import Round, SynchronousMixing
from hvd_gossip.buffers.arrays import add_scaled, is_finite, scale
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")


class SGP(SynchronousMixing):
    """Push-sum mixing of (x, w), the model being z = x / w. Memory: one correction and a weight a chunk."""

    name = "sgp"
    paper = "Assran et al., Stochastic Gradient Push for Distributed Deep Learning, ICML 2019"
    needs = "column-stochastic"
    waits_for = "its in-neighbours of the step"
    default_topology = "one-peer-exponential"
    good_for = "directed and time-varying graphs, skewed data, one message a step"
    bad_for = "a straggler (its out-neighbours wait)"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.weights = np.ones(len(context.replica.chunks), np.float64)
        self._next_weights = self.weights.copy()

    def apply(self, update: Callable[[], R]) -> R:
        replica, weights = self.context.replica, self.weights
        replica.prepare(weights)
        result = update()
        replica.finish(weights)
        return result

    def announcement(self, weight: float) -> bytes:
        return (self.weights * weight).tobytes()

    def mix(self, round_: Round, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        given = float(self.weights[chunk.index]) * sum(round_.out_weights.values())
        if given and not is_finite(mine):
            given = 0.0
            self.context.counters.refuse(self.context.endpoint.rank)
        self._next_weights[chunk.index] -= given
        if given and mine.dtype != chunk.x.dtype:
            chunk.correct(given, chunk.source, mine)
        for peer, theirs in arrived.items():
            self._receive(chunk, peer, theirs, float(np.frombuffer(round_.told[peer])[chunk.index]))

    def _receive(self, chunk: Chunk, peer: int, theirs: Array, share: float) -> None:
        if is_finite(theirs):
            chunk.correct(share, theirs, chunk.source)
            self._next_weights[chunk.index] += share
        else:
            self.context.counters.refuse(peer)

    def complete(self) -> None:
        self.weights = self._next_weights
        self._next_weights = self.weights.copy()

    async def correct_to_mean(self, name: str) -> None:
        replica = self.context.replica
        for chunk, weight in zip(replica.chunks, self.weights, strict=True):
            chunk.correction[...] = chunk.source
            scale(chunk.correction, float(weight))
        corrections = [chunk.correction for chunk in replica.chunks]
        await mean_of_finite(self.context, name, replica.corrections, corrections, self._next_weights)
        for chunk, weight in zip(replica.chunks, self._next_weights, strict=True):
            add_scaled(chunk.correction, -float(weight), chunk.source)
            chunk.pending = True

    def preview(self) -> None:
        self.context.replica.preview(self.weights)

    async def average(self, name: str) -> int:
        return await weighted_average(self.context, name, self.weights.copy())

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = restored_weights(state, len(self.weights))
        self._next_weights = self.weights.copy()
