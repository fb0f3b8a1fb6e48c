"""ChocoSGD: decentralized SGD whose messages are compressed as far as one likes.

Koloskova, Stich, Jaggi: "Decentralized Stochastic Optimization and Gossip Algorithms with Compressed Communication", ICML 2019,
Algorithm 2; Koloskova, Lin, Stich, Jaggi: "Decentralized Deep Learning with Arbitrary Communication Compression", ICLR 2020.

W is symmetric, doubly stochastic and the same in every round. All who know worker i have the same public copy x^_i of its
parameters; what travels is a compressed difference to it, and what compression loses is in the next difference (error feedback):

    x_i(k+1/2) = x_i(k) + u_i(x_i(k))
    q_i        = C(x_i(k+1/2) - x^_i(k)),                  sent to all neighbours
    x^_j(k+1)  = x^_j(k) + q_j                             for i itself and each neighbour j
    x_i(k+1)   = x_i(k+1/2) + gamma sum_j W_ij (x^_j(k+1) - x^_i(k+1)).

That is mixing_order "sequential". With "overlap" q_i is made of x_i(k) and travels while u_i(x_i(k)) is computed, which is added
to what the exchange gives, as in D-PSGD.

x^(0) = 0, and C is the identity in a phase's first exchange: it gives every x^_i its worker's parameters at once. gamma is
`consensus_step`; by default delta of the compressor (what it is for normally distributed elements, where its bound says little),
about where the papers' tuned ones lie. Their Theorem 2 asks for far less.

An edge adds opposite amounts at its two ends, because both have the same bits of x^_i and x^_j; so the sum over the workers
stands still, and a worker that is absent or gone is left out on both ends. For this each neighbour's x^_j is kept. (Their sum
weighted by W_ij would do, as the papers remark, and take less memory, if no worker ever left: nobody could take its part out.)
A q that is not finite is refused by all who know its sender, itself included: x^ stays as it was, and its edges wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.lanes import Lanes
from hvd_gossip.algorithms.remembering import Remembering
from hvd_gossip.algorithms.settings import OUTER, MixingSettings
from hvd_gossip.algorithms.synchronous import Round
from hvd_gossip.buffers.arrays import add_into, add_scaled, is_finite, module_of, squared_distance
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.compressors import Compressor, make_compressor
from hvd_gossip.errors import ConfigError
from hvd_gossip.transport.endpoint import Array


class Choco(Remembering):
    """x_i <- x_i + u_i + gamma sum_j W_ij (x^_j - x^_i), x^ known from compressed differences."""

    name = "choco"
    paper = "Koloskova, Stich, Jaggi, Decentralized Stochastic Optimization with Compressed Communication, ICML 2019"
    needs = "fixed-symmetric"
    default_topology = "torus"
    heeds = frozenset(
        {"mixing_period", "global_average_every", "compressor", "compression_ratio", "consensus_step", *OUTER}
    )
    memory = "2 x + 1 x a neighbour"
    good_for = "very slow links: a hundredth of the bytes, with few neighbours"
    bad_for = "memory on dense graphs; a straggler; consensus is slower, by about the compression"

    def __init__(self, context: Context) -> None:
        rank, topology, settings = context.endpoint.rank, context.topology, context.settings
        super().__init__(context, [rank, *topology.in_weights(rank, 0)])
        self._compressor = make_compressor(settings.compressor, settings.compression_ratio)
        self._made = 0
        self._lanes = _Differences(self)

    @classmethod
    def validate(cls, settings: MixingSettings) -> None:
        super().validate(settings)
        make_compressor(settings.compressor, settings.compression_ratio)
        if settings.consensus_step > 1.0:
            raise ConfigError(f"consensus_step must be at most 1, not {settings.consensus_step}")

    @property
    def compressor(self) -> Compressor:
        """C of the next exchange."""
        return make_compressor("identity") if self.first else self._compressor

    def difference(self, chunk: Chunk) -> Array:
        """Engine: q of this worker as it travels, uint8."""
        rank = self.context.endpoint.rank
        change = chunk.source.copy()
        add_scaled(change, -1.0, self.remembered(rank, chunk))
        # Of the exchange's number, not of a stream's state: a run that goes on from a checkpoint draws the same.
        rng = np.random.default_rng((self.context.settings.seed, rank, self._made, chunk.index))
        return self.compressor.compress(change, rng)

    def step_size(self, chunk: Chunk) -> float:
        """gamma of a chunk."""
        return self.context.settings.consensus_step or self._compressor.typical_delta(chunk.x.size)

    def mix(self, round_: Round, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        rank = self.context.endpoint.rank
        sound = self._learn(rank, chunk, mine)
        for peer, wire in arrived.items():
            if self._learn(peer, chunk, wire) and sound:
                weight = self.step_size(chunk) * round_.in_weights[peer]
                chunk.correct(weight, self.remembered(peer, chunk).copy(), self.remembered(rank, chunk))

    def _learn(self, peer: int, chunk: Chunk, wire: Array) -> bool:
        """x^ += q, unless it would not be finite; everybody who knows the peer comes to the same answer."""
        known = self.remembered(peer, chunk)
        moved = module_of(known).empty_like(known)
        self.compressor.decompress(wire, moved)
        add_into(moved, known, moved)
        if not is_finite(moved):
            self.context.counters.refuse(peer)
            return False
        known[...] = moved
        return True

    def complete(self) -> None:
        self.first = False
        self._made += 1

    def forget(self) -> None:
        super().forget()
        with self.context.replica.space.computing():
            for companion in self._remembered.values():
                for flat in companion.flats:
                    flat.fill(0)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "made": self._made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._made = int(state["made"])


class _Differences(Lanes):
    """Lanes whose chunks travel as compressed differences."""

    def __init__(self, choco: Choco) -> None:
        context = choco.context
        super().__init__(
            context.endpoint, context.replica, context.settings, context.counters, context.channel + 1, corrected=False
        )
        self._choco = choco

    def _form(self, chunk: Chunk) -> tuple[np.dtype[Any], int, int]:
        compressor, dtype = self._choco.compressor, chunk.x.dtype
        return np.dtype(np.uint8), compressor.nbytes(chunk.x.size, dtype), compressor.nbytes(chunk.capacity, dtype)

    def _squared(self, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> float:
        """Of the public copies before this exchange."""
        own = self._choco.remembered(self._choco.context.endpoint.rank, chunk)
        return sum(squared_distance(self._choco.remembered(peer, chunk), own) for peer in arrived)

    def _outgoing(self, chunk: Chunk, receivers: Sequence[int]) -> tuple[Array, dict[int, Array], list[Array]]:
        buffer, wire = self._borrow(chunk)
        with self._replica.space.computing():
            difference = self._choco.difference(chunk)
        self._replica.space.publish(difference, wire)
        return wire, dict.fromkeys(receivers, wire), [buffer]
