"""Allreduce as a transfer, usable without the controller: which algorithm, and what needs none."""

from __future__ import annotations

from collections.abc import Sequence

from hvd_gossip.collectives.flow import Transfer
from hvd_gossip.collectives.halving import HalvingAllreduce
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.request import ReduceOp
from hvd_gossip.collectives.ring import RingAllreduce
from hvd_gossip.collectives.vector import Vector
from hvd_gossip.transport.endpoint import Array, Endpoint

Algorithm = type[HalvingAllreduce] | type[RingAllreduce]

HALVING_BYTES = 4 << 20
"""Up to so many bytes, a power of two of ranks halves and doubles: few messages matter more than links used alike."""


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
    transfer: Transfer, source: Vector, target: Vector, reduction: Reduction, algorithm: Algorithm | None = None
) -> None:
    """target <- the reduction of every rank's source. `target` may be `source`; they are cut into the same arrays.

    Args:
        algorithm: the same on every rank; default: `choose_algorithm`'s.

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
        chosen = algorithm or choose_algorithm(len(transfer.ranks), source.length * source.dtype.itemsize)
        await chosen(transfer, source, target, reduction).run()


def choose_algorithm(size: int, nbytes: int) -> Algorithm:
    """What suits an array of so many bytes among so many ranks.

    Four ranks halve whatever the length: 4 messages a chunk instead of 6, and measured to be faster. Two ranks exchange
    halves either way, and the ring has more of them under way.
    """
    halves = size & (size - 1) == 0 and (size == 4 or nbytes <= HALVING_BYTES)
    return HalvingAllreduce if halves else RingAllreduce
