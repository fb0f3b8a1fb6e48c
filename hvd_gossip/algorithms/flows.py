"""What D2 and gradient tracking share: each edge of a fixed graph remembers what it has carried.

Both correct a worker's update by the sum of all that mixing has brought it so far, of x in the one case and of tracked
updates in the other. With f_ij(k) = W_ij (q_j - q_i) for what edge (i, j) brings i in round k,

    memory of worker i before round k:   z_i(k) = sum_j l_ij(k),        l_ij(k) = f_ij(0) + ... + f_ij(k - 1).

f_ij = -f_ji to the last bit, hence l_ij = -l_ji, hence the z of all workers sum to zero and the mean moves by the updates
alone. That the sum is kept edge by edge costs memory for each neighbour (papers keep the sum only), and it is why a worker
can leave: both ends of an edge that is missing in a round (its other end has left, rests, or is paused) or that is refused
(not finite) retract it: they take l_ij back out of the step and forget it. The sum over those that go on stays zero. With the
sum alone, what the absent worker takes with it would push all others in one direction for ever.

Both ends say, before each exchange, over how many rounds their edge remembers; if they differ (one met a pause that the other
did not see, or was restored from a checkpoint), both retract.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.dpsgd import DPSGD
from hvd_gossip.algorithms.settings import OUTER
from hvd_gossip.algorithms.synchronous import Round
from hvd_gossip.buffers.arrays import add_into, add_scaled, weighted_difference
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")
_COUNT = struct.Struct("<q")


class EdgeMemory(DPSGD):
    """Base of algorithms that add to each update what the edges remember."""

    orders = ("sequential",)
    heeds = frozenset({"wire_dtype", *OUTER})
    default_topology = "ring"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._neighbours = sorted(context.topology.in_weights(context.endpoint.rank, 0))
        self._carried = {peer: context.replica.companion() for peer in self._neighbours}
        self._rounds = dict.fromkeys(self._neighbours, 0)

    def apply(self, update: Callable[[], R]) -> R:
        result = update()
        self.context.replica.applied += bool(self._neighbours)
        for chunk in self.context.replica.chunks:
            with chunk.space.training(chunk):
                for carried in self._carried.values():
                    add_into(chunk.x, chunk.x, carried.chunks[chunk.index])
        return result

    def settle(self) -> None:
        self.context.replica.fold()

    def announcement_to(self, peer: int, weight: float) -> bytes:
        return _COUNT.pack(self._rounds[peer])

    async def swap(self, round_: Round) -> None:
        for peer in self._neighbours:
            if self._rounds[peer] and round_.told.get(peer) != _COUNT.pack(self._rounds[peer]):
                self._rounds[peer] = 0
                for chunk in self.context.replica.chunks:
                    self.retract(peer, chunk)
        await self.swap_all(round_)
        for peer in round_.told:
            self._rounds[peer] += 1

    async def swap_all(self, round_: Round) -> None:
        """Engine: the exchange itself."""
        await super().swap(round_)

    def carry(self, peer: int, chunk: Chunk, flow: Array) -> None:
        """Engine: the edge remembers what it has brought."""
        carried = self._carried[peer].chunks[chunk.index]
        add_into(carried, carried, flow)

    def retract(self, peer: int, chunk: Chunk) -> None:
        """Engine: takes what the edge remembers back out of this step, and forgets it."""
        carried = self._carried[peer].chunks[chunk.index]
        with chunk.space.engine(chunk):
            add_scaled(chunk.correction, -1.0, carried)
            carried.fill(0)
            chunk.pending = True

    def flow(self, round_: Round, peer: int, chunk: Chunk, theirs: Array, mine: Array) -> Array:
        """W_ij (q_j - q_i), of the type that the chunk is added in."""
        return weighted_difference(round_.in_weights[peer], theirs, mine, chunk.x.dtype)

    def forget(self) -> None:
        for carried in self._carried.values():
            for flat in carried.flats:
                flat.fill(0)
        self._rounds = dict.fromkeys(self._neighbours, 0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "size": self.context.topology.size,
            "rounds": dict(self._rounds),
            "carried": {peer: carried.state() for peer, carried in self._carried.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`'s value. Edges of another number of workers, or that are not here, are left out."""
        known = state["carried"].keys() if state["size"] == self.context.topology.size else ()
        for peer in sorted(set(known) & set(self._neighbours)):
            self._carried[peer].load(state["carried"][peer], f"what the edge to rank {peer} carried, in arrays")
            self._rounds[peer] = int(state["rounds"][peer])
