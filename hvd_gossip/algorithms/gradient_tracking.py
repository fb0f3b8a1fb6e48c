"""Gradient tracking: each worker follows an estimate of the mean of all workers' updates.

Pu and Nedic: "Distributed stochastic gradient tracking methods", Mathematical Programming 2021, equations (3) and (4); before
them Di Lorenzo and Scutari, "NEXT: In-Network Nonconvex Optimization", IEEE TSIPN 2016; Koloskova, Lin, Stich: "An Improved
Analysis of Gradient Tracking for Decentralized Machine Learning", NeurIPS 2021. Adapt, then combine, as in the first of
these:

    x_i(k+1) = sum_j W_ij [ x_j(k) + y_j(k) ],
    y_i(k+1) = sum_j W_ij y_j(k) + u_i(k+1) - u_i(k),          y_i(0) = u_i(0),

in updates: for plain SGD with a constant rate u = -lr g, and y is -lr times the paper's. W is symmetric and doubly
stochastic, so the sum of y over the workers is the sum of u in every step, and at a fixed point every x is the same and the
updates sum to zero.

Let r_i(k) = y_i(k) - u_i(k). The second line says r_i(k+1) = r_i(k) + sum_j W_ij (y_j - y_i)(k), r_i(0) = 0: each update is
corrected by all that mixing y has brought so far, which `flows.EdgeMemory` keeps edge by edge.

With a schedule, or another optimizer than SGD, it is updates that are tracked, not gradients: their sum is right in every
step, and what a worker adds to its own update has adapted to a new rate after about 1 / (spectral gap) rounds (the paper's y,
free of the rate, adapts at once).

Exchanged: x + y, and y: twice the bytes of D-PSGD. Kept: the sum of x changes by the updates alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.flows import EdgeMemory
from hvd_gossip.algorithms.lanes import LANES, Lanes, both_finite
from hvd_gossip.algorithms.synchronous import Round
from hvd_gossip.buffers.arrays import add_scaled
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")


class GradientTracking(EdgeMemory):
    """Mixes the updates as well as the parameters. Memory: two corrections, and one for each neighbour."""

    name = "gradient-tracking"
    paper = "Pu and Nedic, Distributed stochastic gradient tracking methods, Mathematical Programming 2021"
    needs = "fixed-symmetric"
    waits_for = "its neighbours"
    memory = "2 x, and 1 x a neighbour"
    good_for = "data that differ between workers; graphs that D2 must slow down"
    bad_for = "slow links (twice the bytes), a straggler (its neighbours wait)"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._tracked = context.replica.companion()
        self._tracked_lanes = Lanes(
            context.endpoint,
            context.replica,
            dataclasses.replace(context.settings, consensus_sample_every=0),
            context.counters,
            context.channel + 1 + LANES,
            corrected=False,
            outgoing=lambda chunk: self._tracked.chunks[chunk.index],
        )

    def apply(self, update: Callable[[], R]) -> R:
        replica = self.context.replica
        self._tracked.copy_from(replica.flats)
        result = super().apply(update)
        for chunk, tracked in zip(replica.chunks, self._tracked.chunks, strict=True):
            with chunk.space.training(chunk):
                add_scaled(tracked, -1.0, chunk.x)
                tracked *= -1
        return result

    async def swap_all(self, round_: Round) -> None:
        tracked = self._tracked_lanes.exchange(
            list(round_.in_weights),
            list(round_.out_weights),
            lambda chunk, mine, arrived: self._track(round_, chunk, mine, arrived),
        )
        spawn = self.context.endpoint.spawn
        await all_of([spawn(tracked, "tracked updates"), spawn(super().swap_all(round_), "parameters")])

    def _track(self, round_: Round, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        for peer, theirs in arrived.items():
            if both_finite(mine, theirs):
                self.carry(peer, chunk, self.flow(round_, peer, chunk, theirs, mine))
            else:
                self.context.counters.refuse(peer)
                self.retract(peer, chunk)

    def _count(self, round_: Round) -> None:
        super()._count(round_)
        self.context.counters.bytes_sent += self._tracked_lanes.nbytes * len(round_.out_weights)
        self.context.counters.bytes_received += self._tracked_lanes.nbytes * len(round_.in_weights)
