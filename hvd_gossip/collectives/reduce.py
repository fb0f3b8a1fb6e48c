"""Allreduce as a transfer, usable without the controller: which algorithm, and what needs none."""

from __future__ import annotations

from collections.abc import Sequence

from hvd_gossip.collectives.direct import DirectAllreduce
from hvd_gossip.collectives.flow import Transfer
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.request import ReduceOp
from hvd_gossip.collectives.ring import RingAllreduce
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.transport.endpoint import Array, Endpoint

DIRECT_RANKS = 4
"""Up to so many ranks exchange directly: 2 steps instead of 2 (n - 1). More go around a ring, whose links are few."""


async def allreduce(
    endpoint: Endpoint, array: Array, ranks: Sequence[int], channel: int, op: ReduceOp = ReduceOp.AVERAGE
) -> None:
    """Replaces a C-contiguous array, in place, by its reduction over `ranks`, each of which calls this.

    Needs no controller. Nothing else may travel on `channel` between these ranks meanwhile.

    Raises:
        TransportError: a peer failed.
    """
    vector = Vector([array])
    await reduce_vectors(Transfer(endpoint, ranks, channel), vector, vector, Reduction(array, op, len(ranks)))


async def reduce_vectors(
    transfer: Transfer, source: Vector, target: Vector, reduction: Reduction, direct_ranks: int = DIRECT_RANKS
) -> None:
    """target <- the reduction of every rank's source. `target` may be `source`; they are cut into the same arrays.

    Raises:
        TransportError: a peer failed.
    """
    arrays = zip(source.pieces(0, source.length), target.pieces(0, target.length), strict=True)
    alone = len(transfer.ranks) == 1
    if reduction.prescale != 1.0 or (alone and not (source is target and reduction.is_identity)):
        with transfer.memory.computing():
            for given, wanted in arrays:
                (reduction.reduce_one if alone else reduction.prescaled)(wanted.view, given.view)
        source = target
    if not alone:
        algorithm = DirectAllreduce if len(transfer.ranks) <= direct_ranks else RingAllreduce
        await algorithm(transfer, source, target, reduction).run()
