"""AGP: asynchronous gradient push, push-sum without a common clock.

Assran and Rabbat: "Asynchronous Gradient-Push", IEEE Transactions on Automatic Control 66(1), 2021 (arXiv 1803.08950),
Algorithm 3; PushSum by Kempe, Dobra, Gehrke (FOCS 2003).

Worker i keeps mass x_i and a weight w_i; the model is z_i = x_i / w_i. At its own step k, waiting for nobody, it

    takes what has arrived:     x_i <- x_i + sum (shares of x),     w_i <- w_i + sum (shares of w),
    applies its update:         x_i <- x_i + u_i(z_i),
    gives to each out-neighbour j of its round k the share p_ji w_i of its weight, and of x_i the same part.

The sum of x and of w over the workers and the messages between them is constant but for the updates. Each chunk is a push-sum of
its own: one that is not finite stays with its sender and is dropped by its receiver, by the same test of the same bytes.

Three rules bound what a worker without a clock could do to the others. A share for j stays home while j's training has not
taken the one before: a straggler would gather all the mass. A worker keeps at least the weight KEPT: one whose in-neighbours
are slow would give itself away, and its updates count 1 / w_i times in z_i. Who departs takes at most the weight 1 with it,
its share of the whole, as its final model; what it has beyond that goes to a neighbour first. So those who stay have at least
the weight 1 each, on average, whatever happens.

The correction is relative to z: mass x_i = w_i z_i + c_i; while the update is being made (`_open`), it is z_i + c_i.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Algorithm, Context, Wait
from hvd_gossip.algorithms.lanes import Lanes
from hvd_gossip.algorithms.pushsum import restored_weights, weighted_average
from hvd_gossip.algorithms.settings import OUTER
from hvd_gossip.buffers.arrays import add_difference, add_into, add_scaled, is_finite, scale
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.tasks import Future, Signal
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")
KEPT = 0.25
"""A worker gives only of what it has beyond this weight."""
SHARE, RECEIVED, TAKEN, RESTING, LEAVING, FAREWELL, GONE = range(7)
_TOKEN = struct.Struct("<bq")
"""Kind, phase; of a SHARE the weight of each chunk follows, float64."""


class AGP(Algorithm):
    """Push-sum of what has arrived, waiting for nobody. Memory: one correction and a weight a chunk."""

    name = "agp"
    paper = "Assran and Rabbat, Asynchronous Gradient-Push, IEEE TAC 2021"
    synchronous = False
    needs = "column-stochastic"
    default_topology = "one-peer-exponential"
    orders = ("overlap",)
    heeds = frozenset({"mixing_period", "wire_dtype", *OUTER})
    overwritable = False
    memory = "1 x"
    good_for = "stragglers, workers of different or changing speed, directed graphs; one-way messages"
    bad_for = "results depend on timing; faster workers' data count more"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        endpoint, replica = context.endpoint, context.replica
        self.weights = np.ones(len(replica.chunks), np.float64)
        self._reserved = np.zeros_like(self.weights)
        self._open = [False] * len(replica.chunks)
        self._neighbours = context.topology.neighbours(endpoint.rank)
        self._lanes = Lanes(
            endpoint, replica, context.settings, context.counters, context.channel + 1,
            corrected=False, outgoing=self._model,
        )  # fmt: skip
        self._steps = 0
        self._rounds = 0
        self._active = 0
        self._quiet = False
        self._flying: set[int] = set()
        self._untaken: dict[int, int] = {}
        self._arrived: list[int] = []
        self._leaving: set[int] = set()
        self._gone: set[int] = set()
        self._farewells: set[int] = set()
        self._resting: dict[int, int] = {}
        self._awake_from = 0
        self._changed = Signal("a share or a departure")

    # `weights` is changed by the engine's thread alone, under the chunk's lock; `_open` by the training thread, under it too.
    # `_leaving`: who has said so, or is gone: neither shares nor TAKEN are for them.
    # `_flying`: who has not received what was sent; `_untaken`: whose training has not taken it, and the step of the giving.

    def start(self) -> None:
        self._listener = self.context.endpoint.spawn(self._listen(), "shares of the neighbours")

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        yield from ()
        result = self._apply(update)
        self.context.replica.space.updated()
        self.context.post(self._stepped)
        return result

    def settle(self) -> None:
        self._apply(lambda: None)

    def preview(self) -> None:
        self.context.replica.preview(self.weights)

    async def average(self, name: str) -> int:
        return await weighted_average(self.context, name, self.weights.copy())

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = restored_weights(state, len(self.weights))

    async def pause(self) -> None:
        """All shares have been received when all workers are here."""
        self._quiet = True
        await self._drained()
        await self.context.exact_average(f"agp.{self.context.channel}.pause.{self.phase}", [])

    async def rest(self) -> None:
        """Nobody gives to who rests: a share that is not taken stays home."""
        self._quiet = True
        await self._drained()
        for peer in self._neighbours - self._gone:
            self._tell(peer, RESTING)

    async def resume(self, phase: int | None = None) -> None:
        if phase is not None:
            self._awake_from = phase
            self._resting = {peer: since for peer, since in self._resting.items() if since >= phase}
        self.phase = self.phase + 1 if phase is None else phase
        self._quiet = False

    async def depart(self) -> None:
        """When every neighbour has said that nothing more comes, hands on what it has beyond the weight 1.

        The heir has not said that it leaves: it will wait for this worker's FAREWELL, which comes after the share, or GONE.
        """
        self._quiet = True
        await self._drained()
        for peer in self._neighbours - self._gone:
            self._tell(peer, LEAVING)
        await self._changed.until(lambda: not self._neighbours - self._farewells - self._gone)
        await self._drained()
        self._hand_on()
        await self._drained()
        for peer in self._neighbours - self._gone:
            self._tell(peer, GONE)
        self._listener.cancel()

    def _hand_on(self) -> None:
        surplus = np.maximum(self.weights - 1.0, 0.0)
        heirs = sorted(self._neighbours - self._leaving - set(self._resting))
        if heirs and surplus.any():
            self._give(heirs[self.context.endpoint.rng.integers(len(heirs))], surplus)

    async def _drained(self) -> None:
        await self._changed.until(lambda: self._active == 0 and not self._flying)

    def _apply(self, update: Callable[[], R]) -> R:
        """Training thread: x <- (w z + u + c) / w, where whatever arrives during the update counts already."""
        replica = self.context.replica
        for chunk in replica.chunks:
            with replica.space.training(chunk):
                weight = float(self.weights[chunk.index])
                if weight != 1.0:
                    add_scaled(chunk.correction, weight - 1.0, chunk.x)
                    chunk.pending = True
                self._open[chunk.index] = True
        result = update()
        for chunk in replica.chunks:
            with replica.space.training(chunk):
                self._close(chunk)
        return result

    def _close(self, chunk: Chunk) -> None:
        weight = float(self.weights[chunk.index])
        if chunk.pending:
            add_into(chunk.x, chunk.x, chunk.correction)
            chunk.correction.fill(0)
            chunk.pending = False
            self.context.replica.applied += 1
        if weight != 1.0:
            scale(chunk.x, 1.0 / weight)
        self._open[chunk.index] = False

    def _model(self, chunk: Chunk) -> Array:
        """Engine: the chunk's x_i / w_i, with what has arrived."""
        with self.context.replica.space.engine(chunk):
            model, weight = chunk.source.copy(), float(self.weights[chunk.index])
            if self._open[chunk.index]:
                add_into(model, model, chunk.correction)
                scale(model, 1.0 / weight)
            elif chunk.pending:
                add_scaled(model, 1.0 / weight, chunk.correction)
        return model

    def _add(self, chunk: Chunk, share: float, model: Array) -> None:
        """Engine: w_i <- w_i + share, x_i <- x_i + share * model. `model` may be used as scratch."""
        with self.context.replica.space.engine(chunk):
            if self._open[chunk.index]:
                add_scaled(chunk.correction, share, model)
            else:
                add_difference(chunk.correction, share, model, chunk.source)
            chunk.pending = True
            self.weights[chunk.index] += share

    def _stepped(self) -> None:
        """Engine: tells whose shares were taken, and gives those of the round."""
        self._steps += 1
        for peer in self._arrived:
            if peer not in self._leaving:
                self._tell(peer, TAKEN)
        self._arrived.clear()
        if not self._quiet and self._steps % self.context.settings.mixing_period == 0:
            self._push(self._rounds)
            self._rounds += 1

    def _push(self, round_: int) -> None:
        out = self.context.topology.out_weights(self.context.endpoint.rank, round_)
        absent = self._leaving | set(self._resting) | set(self._untaken)
        parts = {peer: part for peer, part in out.items() if peer not in absent}
        free = self.weights - self._reserved
        wanted = free * sum(parts.values())
        spare = np.maximum(free - KEPT, 0.0)
        factor = np.minimum(1.0, np.divide(spare, wanted, out=np.zeros_like(free), where=wanted > 0))
        for peer, part in parts.items():
            shares = part * free * factor
            if shares.any():
                self._give(peer, shares)

    def _give(self, peer: int, shares: np.ndarray) -> None:
        """Begins to send a share. The token goes out at once: a FAREWELL to the peer must not overtake it."""
        self._active += 1
        self._flying.add(peer)
        self._untaken[peer] = self._steps
        self._reserved += shares
        told = self._tell(peer, SHARE, shares.tobytes())
        self.context.endpoint.spawn(self._send(peer, shares, told), ("share for rank", peer))

    async def _send(self, peer: int, shares: np.ndarray, told: Future[None]) -> None:
        def sent(chunk: Chunk, mine: Array, _: dict[int, Array]) -> None:
            share = float(shares[chunk.index])
            self._reserved[chunk.index] -= share
            if is_finite(mine):
                self._add(chunk, -share, mine)
            else:
                self.context.counters.refuse(self.context.endpoint.rank)

        await told
        await self._lanes.exchange([], [peer], sent)
        self.context.counters.bytes_sent += self._lanes.nbytes
        self.context.counters.exchanges += 1
        self._end()

    async def _receive(self, peer: int, shares: np.ndarray) -> None:
        def arrived(chunk: Chunk, _: Array, theirs: dict[int, Array]) -> None:
            if is_finite(theirs[peer]):
                self._add(chunk, float(shares[chunk.index]), theirs[peer])
            else:
                self.context.counters.refuse(peer)

        counters = self.context.counters
        await self._lanes.exchange([peer], [], arrived)
        counters.bytes_received += self._lanes.nbytes
        counters.exchanges += 1
        counters.last_peer = peer
        self._tell(peer, RECEIVED)
        self._arrived.append(peer)
        self._end()

    def _end(self) -> None:
        self._active -= 1
        self._changed.set()

    def _tell(self, peer: int, kind: int, payload: bytes = b"") -> Future[None]:
        return self.context.endpoint.send(peer, self.context.channel, _TOKEN.pack(kind, self.phase) + payload)

    async def _listen(self) -> None:
        while True:
            source, data = await self.context.endpoint.recv_any(self.context.channel)
            kind, phase = _TOKEN.unpack_from(data)
            if kind == SHARE:
                self._active += 1
                shares = np.frombuffer(data, np.float64, offset=_TOKEN.size)
                self.context.endpoint.spawn(self._receive(source, shares), ("share of rank", source))
            else:
                self._hear(source, kind, phase)
                self._changed.set()

    def _hear(self, source: int, kind: int, phase: int) -> None:
        if kind == RECEIVED:
            self._flying.discard(source)
        elif kind == TAKEN:
            self.context.counters.staleness[source] = self._steps - self._untaken.pop(source, self._steps)
        elif kind == RESTING:
            if phase >= self._awake_from:
                self._resting[source] = phase
        elif kind == LEAVING:  # the answer is not awaited: both may leave at once
            self._leaving.add(source)
            self._tell(source, FAREWELL)
        elif kind == FAREWELL:
            self._farewells.add(source)
        else:
            self._gone.add(source)
