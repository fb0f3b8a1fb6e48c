"""RelaySGD: neighbours in a tree relay sums, so that every worker's parameters reach every other exactly once.

Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi: "RelaySum for Decentralized Deep Learning on Heterogeneous Data", NeurIPS
2021, Algorithm 1. N_i are worker i's neighbours in the tree; all begin with x(0):

    x_i(t+1/2) = x_i(t) + u_i(x_i(t))
    m_ij(t)    = x_i(t+1/2) + sum_{k in N_i, k != j} m_ki(t-1),         c_ij(t) = 1 + sum_{k in N_i, k != j} c_ki(t-1)
    x_i(t+1)   = ( x_i(t+1/2) + sum_{j in N_i} m_ji(t) + (n - n_i) x(0) ) / n,      n_i = 1 + sum_{j in N_i} c_ji(t):

the exact mean of all workers' parameters, as old as their way is long. Gossip's mean is of recent ones, but weighs them
unequally: where workers' data differ, that is what hurts. The above is mixing_order "sequential"; with "overlap" m_ij is made of
x_i(t) and travels while u_i(x_i(t)) is computed, which is added to the mean, as in D-PSGD.

What is kept and sent of m_ij is its mean, m_ij / c_ij: as large as parameters are, on a narrow wire too. The term in x(0) is in
the messages that a worker supposes to have had at first: c_ki is the number of workers beyond k, all supposed to be where i is.

The plain sum of x is not conserved. A worker's parameters count until the last has had them; with S_i the workers on i's side
of the edge to k, what changes by the updates alone is

    sum_i x_i + (1/n) sum_{i, k in N_i} (|S_i| - 1) m_ki.

A worker that is absent or gone cuts the tree: its neighbour has c = 0 from it, all c are right again after as many exchanges as
the way is long, each part comes to the mean of its own, and n is n_i. A message that is not finite counts as none.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Context, Wait
from hvd_gossip.algorithms.lanes import Lanes
from hvd_gossip.algorithms.remembering import Remembering
from hvd_gossip.algorithms.synchronous import Round
from hvd_gossip.buffers.arrays import compute_dtype, is_finite, module_of, squared_distance
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.topology.base import Topology
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")


class RelaySGD(Remembering):
    """x_i <- the mean of everybody's x, each as old as its way through the tree is long, + u_i."""

    name = "relaysgd"
    paper = "Vogels et al., RelaySum for Decentralized Deep Learning on Heterogeneous Data, NeurIPS 2021"
    needs = "tree"
    default_topology = "binary-tree"
    memory = "1 x + 1 x a neighbour"
    good_for = "strongly skewed data; few and small messages"
    bad_for = "a straggler; workers that leave (they cut the tree)"

    def __init__(self, context: Context) -> None:
        rank, topology = context.endpoint.rank, context.topology
        self._beyond = {peer: workers_beyond(topology, rank, peer) for peer in topology.in_weights(rank, 0)}
        super().__init__(context, self._beyond)
        self._counts = {peer: np.zeros(len(context.replica.chunks), np.int64) for peer in self._beyond}
        self._lanes = _Relays(self)

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        if self.first:
            self._suppose_all_alike()
        return (yield from super().step(update))

    def announcements(self, peers: Sequence[int], out_weights: Mapping[int, float]) -> dict[int, bytes]:
        """c of each chunk's message to each neighbour."""
        total = 1 + sum(self._counts.values())
        return {peer: (total - self._counts[peer]).tobytes() for peer in peers}

    def count(self, peer: int, chunk: Chunk) -> int:
        """c of the newest message from a neighbour."""
        return int(self._counts[peer][chunk.index])

    def messages(self, chunk: Chunk) -> dict[int, Array]:
        """Engine: m / c to each neighbour. All sums that leave one out, in as many additions as there are neighbours, twice."""
        work, total = compute_dtype(chunk.x.dtype), 1 + sum(self.count(peer, chunk) for peer in self._beyond)
        parts = {p: self.remembered(p, chunk).astype(work) * work.type(self.count(p, chunk)) for p in self._beyond}
        means: dict[int, Array] = {}
        running = chunk.source.astype(work)
        for peer, part in parts.items():
            means[peer] = running
            running = running + part
        running = module_of(running).zeros_like(running)
        for peer, part in reversed(parts.items()):
            means[peer] = (means[peer] + running) / work.type(total - self.count(peer, chunk))
            running = running + part
        return means

    def mix(self, round_: Round, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        for peer, counts in self._counts.items():
            counts[chunk.index] = self._heed(round_, chunk, peer, arrived[peer]) if peer in arrived else 0
        if not is_finite(mine):
            self.context.counters.refuse(self.context.endpoint.rank)
            return
        heard = {peer: self.count(peer, chunk) for peer in self._beyond if self.count(peer, chunk)}
        total = 1 + sum(heard.values())
        for peer, count in heard.items():
            chunk.correct(count / total, self.remembered(peer, chunk).copy(), mine)

    def _heed(self, round_: Round, chunk: Chunk, peer: int, message: Array) -> int:
        """Keeps a message that is finite; returns how many workers it is the mean of."""
        if not is_finite(message):
            self.context.counters.refuse(peer)
            return 0
        self.remembered(peer, chunk)[...] = message
        return int(np.frombuffer(round_.told[peer], np.int64)[chunk.index])

    def remember(self, mean: Sequence[Array]) -> None:
        super().remember(mean)
        self._count_everybody()

    def _suppose_all_alike(self) -> None:
        """Training thread, before a phase's first update: all others are where this worker is."""
        for chunk in self.context.replica.chunks:
            with self.context.replica.space.training(chunk):
                for peer in self._beyond:
                    self.remembered(peer, chunk)[...] = chunk.x
        self._count_everybody()
        self.first = False

    def _count_everybody(self) -> None:
        for peer, beyond in self._beyond.items():
            self._counts[peer][:] = beyond

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "counts": {str(peer): counts.copy() for peer, counts in self._counts.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for peer, counts in self._counts.items():
            counts[:] = state["counts"][str(peer)]


class _Relays(Lanes):
    """Lanes in which each neighbour is sent something else."""

    def __init__(self, relay: RelaySGD) -> None:
        context = relay.context
        super().__init__(
            context.endpoint, context.replica, context.settings, context.counters, context.channel + 1, corrected=False
        )
        self._relay = relay

    def _squared(self, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> float:
        """A mean of c workers is nearer to the mean of all than one worker is, by a factor of sqrt(c) if they are independent."""
        return sum(
            squared_distance(theirs, mine) * 2 / (1 + 1 / max(1, self._relay.count(peer, chunk)))
            for peer, theirs in arrived.items()
        )

    def _outgoing(self, chunk: Chunk, receivers: Sequence[int]) -> tuple[Array, dict[int, Array], list[Array]]:
        with self._replica.space.computing():
            messages = self._relay.messages(chunk)
        borrowed = {peer: self._borrow(chunk) for peer in receivers}
        wires = {peer: wire for peer, (_, wire) in borrowed.items()}
        for peer, wire in wires.items():
            self._replica.space.publish(messages[peer], wire)
        return chunk.source, wires, [buffer for buffer, _ in borrowed.values()]


def workers_beyond(tree: Topology, rank: int, peer: int) -> int:
    """How many workers the edge from `rank` to its neighbour `peer` leads to, `peer` among them."""
    reached, pending = {rank, peer}, [peer]
    while pending:
        new = set(tree.in_weights(pending.pop(), 0)) - reached
        reached |= new
        pending.extend(new)
    return len(reached) - 1
