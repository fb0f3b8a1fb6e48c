"""QG-DSGDm: decentralized SGD with quasi-global momentum.

Lin, Karimireddy, Stich, Jaggi: "Quasi-Global Momentum: Accelerating Decentralized Deep Learning on Heterogeneous Data", ICML
2021, Algorithm 1, with mu = beta as in its experiments:

    m_i(k)     = beta M_i(k-1) + g_i(k)
    h_i(k)     = x_i(k) - lr m_i(k)                     QG-DSGDm-N (Nesterov):  x_i(k) - lr [ g_i(k) + beta m_i(k) ]
    x_i(k+1)   = sum_j W_ij h_j(k)
    M_i(k)     = mu M_i(k-1) + (1 - mu) [ x_i(k) - x_i(k+1) ] / lr,                 M_i(-1) = 0.

Momentum is not that of a worker's own gradients but of the way that its parameters have gone, mixing included, which is
nearly the way of all: where data differ, own momentum pulls the workers apart. Here, in updates (u = -lr g; what is kept is
-lr times the paper's M, so that a schedule does not rescale what is remembered):

    h_i(k) = x_i(k) + u_i(k) + beta M_i(k-1),           M_i(k) = mu M_i(k-1) + (1 - mu) [ x_i(k+1) - x_i(k) ].

The wrapped optimizer should be SGD without momentum: the momentum is this algorithm's, with one worker as well.

Exchanged: h. Kept: mixing moves no mass, but the sum over the workers changes by momentum as well as by the updates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.dpsgd import DPSGD
from hvd_gossip.buffers.arrays import add_into, add_scaled, scale
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")


class QGDSGDm(DPSGD):
    """D-PSGD with momentum of the way that all have gone together. Memory: one correction and the momentum."""

    name = "qg-dsgdm"
    paper = "Lin et al., Quasi-Global Momentum, ICML 2021"
    orders = ("sequential",)
    heeds = DPSGD.heeds | {"qg_momentum", "qg_nesterov"}
    is_wrapped_alone = False
    memory = "2 x"
    good_for = "momentum SGD on data that differ between workers"
    bad_for = "wrapped optimizers with momentum of their own; a straggler (its neighbours wait)"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._momentum = context.replica.companion()

    def apply(self, update: Callable[[], R]) -> R:
        """The correction, which is zero until the exchange begins, holds x(k) during the update."""
        replica = self.context.replica
        for chunk in replica.chunks:
            with chunk.space.training(chunk):
                chunk.correction[...] = chunk.x
        result = update()
        replica.applied += 1
        for chunk, momentum in zip(replica.chunks, self._momentum.chunks, strict=True):
            with chunk.space.training(chunk):
                self._advance_by_momentum(chunk, momentum)
        return result

    def _advance_by_momentum(self, chunk: Chunk, momentum: Array) -> None:
        """x(k) + u to h(k), and the momentum to what it will be if no exchange adds to h."""
        beta = self.context.settings.qg_momentum
        went, before = momentum.copy(), chunk.correction
        scale(went, beta)
        if self.context.settings.qg_nesterov:
            add_into(went, went, chunk.x)
            add_scaled(went, -1.0, before)
            scale(went, beta)
        add_into(chunk.x, chunk.x, went)
        scale(momentum, beta)
        add_scaled(momentum, 1.0 - beta, chunk.x)
        add_scaled(momentum, beta - 1.0, before)
        before.fill(0)

    def settle(self) -> None:
        """What mixing adds to x(k + 1) is part of the way that was gone."""
        beta = self.context.settings.qg_momentum
        for chunk, momentum in zip(self.context.replica.chunks, self._momentum.chunks, strict=True):
            with chunk.space.training(chunk):
                if chunk.pending:
                    add_scaled(momentum, 1.0 - beta, chunk.correction)
        self.context.replica.fold()

    def forget(self) -> None:
        for flat in self._momentum.flats:
            flat.fill(0)

    def state_dict(self) -> dict[str, Any]:
        return {"momentum": self._momentum.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._momentum.load(state["momentum"], "momenta")
