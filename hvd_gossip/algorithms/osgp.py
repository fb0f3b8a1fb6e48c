"""OSGP: Overlap SGP, push-sum whose messages may take several steps.

Assran, Loizou, Ballas, Rabbat: "Stochastic Gradient Push for Distributed Deep Learning", ICML 2019, section 3 ("Overlap SGP")
and Algorithm 2 of its appendix; push-sum as in `sgp`, whose notation this is.

What is sent after step k arrives by step k + tau; no step waits for anything younger. Worker i keeps its own share at once,

    x_i(k+1) = p_ii(k) x_i(k) + sum_j p_ij(k+1-tau) x_j(k+1-tau) + u_i(z_i(k)),
    w_i(k+1) = p_ii(k) w_i(k) + sum_j p_ij(k+1-tau) w_j(k+1-tau),                   z_i = x_i / w_i,

so up to tau messages an edge are under way. With tau = 1 these are the equations of `sgp` in its order "overlap". The paper
adds a message as soon as it has come, at k + tau at the latest; here it is added at k + tau exactly, so that a run does not
depend on timing. The paper sends every tau steps; here that is mixing_period, on its own. Sending more often than the paper
keeps more mass under way than at the workers: w_i settles near 1 / (1 + tau (1 - p_ii)), after a low of p_ii^tau in the first
steps, and an update counts 1 / w_i times in z_i. With a large tau set mixing_period to tau, or a small learning rate.

The shares of round k are taken from x(k) as step k left it, whenever the engine comes to send them: a copy of z(k) leaves the
worker with its part of w, and takes the sum of what arrives in its place. Mass is conserved by the sum of (x, w) over the workers
and over these flights. What cannot leave (an absent neighbour, a chunk that is not finite) is a message to the worker itself.
Whatever is under way arrives at once at a pause, and before an exact average.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import numpy as np

from hvd_gossip.algorithms.base import Context, Wait
from hvd_gossip.algorithms.lanes import LANES, Lanes
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.algorithms.sgp import SGP
from hvd_gossip.algorithms.synchronous import Round
from hvd_gossip.buffers.arrays import add_into, add_scaled, is_finite, scale
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.errors import TopologyError
from hvd_gossip.topology.base import Topology
from hvd_gossip.transport.endpoint import ALGORITHM_STRIDE, Array

R = TypeVar("R")
DEPTH = (ALGORITHM_STRIDE - 1) // LANES
"""So many rounds travel side by side, each on channels of its own; younger ones wait until a channel is free."""


class Flight:
    """One round: z as it left, then the sum of what came.

    Attributes:
        values: laid out as the parameters. Until a chunk has travelled: z as it left; then sum_j p_ij x_j.
        weights: of each chunk, w when the round began.
        taken: what of it left the worker.
        brought: the weight that comes with `values`.
        empty: of each chunk, whether nothing comes: with a narrow wire values may come without weight.
        due: the step that it must have arrived by.
        done: whether it has. Owner: the engine's thread; the others belong to whoever has the flight: the training thread
            before it begins and after it is done, the engine in between.
    """

    def __init__(self, context: Context, channel: int) -> None:
        self.values = values = context.replica.companion()
        self.channel = channel
        self.lanes = Lanes(
            context.endpoint, context.replica, context.settings, context.counters, channel,
            corrected=False, outgoing=lambda chunk: values.chunks[chunk.index],
        )  # fmt: skip
        self.weights = self.taken = self.brought = np.empty(0)
        self.empty: list[bool] = []
        self.due = 0
        self.done = True


class OSGP(SGP):
    """Push-sum whose messages take up to tau steps. Memory: a correction, and a copy of the parameters a round under way."""

    name = "osgp"
    paper = "Assran et al., Stochastic Gradient Push for Distributed Deep Learning, ICML 2019 (Overlap SGP)"
    orders = ("overlap",)
    heeds = SGP.heeds | {"tau"}
    overwritable = False
    waits_for = "what its in-neighbours sent tau steps ago"
    memory = "(1 + tau) x"
    good_for = "links whose latency is longer than a step; directed and time-varying graphs"
    bad_for = "a lasting straggler (its out-neighbours wait, tau steps later); memory"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        _require_remainder(context.topology, context.endpoint.rank)
        numbers = range(context.settings.tau)
        self._flights = [Flight(context, context.channel + 1 + LANES * (number % DEPTH)) for number in numbers]
        self._flying: deque[Flight] = deque()
        self._travelling: list[Flight] = []

    # `_flying`, begun and not landed, belongs to the training thread, `_travelling` to the engine's; both in order of age.

    @classmethod
    def rounds_under_way(cls, settings: MixingSettings) -> int:
        return min(settings.tau, DEPTH)

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        if not self._flying and self._finished < self._begun:
            yield self._settled  # an exact average
        due = [flight for flight in self._flying if flight.due <= self._steps + 1]
        if not all(flight.done for flight in due):
            yield functools.partial(self._arrival, due)
        for flight in due:
            self._land(flight, self.context.replica.space.training)
        result = self.apply(update)
        if self._averages_after(self._steps + 1):
            yield self._settled
            self.settle()
        self._advance()
        return result

    def load(self, number: int, exact: bool) -> None:
        if exact:
            return
        flight, replica = self._flights[number % len(self._flights)], self.context.replica
        for chunk, values in zip(replica.chunks, flight.values.chunks, strict=True):
            with replica.space.training(chunk):
                values[...] = chunk.x
        rank = self.context.endpoint.rank
        flight.weights = self.weights
        flight.taken = self.weights * sum(self.context.topology.out_weights(rank, number + self.phase).values())
        flight.brought = np.zeros_like(self.weights)
        flight.empty = [False] * len(replica.chunks)
        flight.due = self._steps + self.context.settings.tau
        flight.done = False
        self.weights = self.weights - flight.taken
        self._flying.append(flight)

    def complete(self) -> None:
        """The training thread has the weights, and takes what is complete when it is due."""

    async def correct_to_mean(self, name: str) -> None:
        self._next_weights = self.weights.copy()
        await super().correct_to_mean(name)
        self.weights = self._next_weights

    async def _exchange(self, number: int) -> None:
        flight = self._flights[number % len(self._flights)]
        self._travelling.append(flight)
        await self._moved.until(lambda: self._is_next(flight))
        round_ = await self._meet(number, lambda weight: (flight.weights * weight).tobytes())
        gather = functools.partial(self._gather, flight, round_)
        if round_.told:
            await flight.lanes.exchange(list(round_.in_weights), list(round_.out_weights), gather)
        else:
            for chunk, values in zip(self.context.replica.chunks, flight.values.chunks, strict=True):
                gather(chunk, values, {})
        self._count(round_)
        self._travelling.remove(flight)
        flight.done = True
        self._finish()

    def _is_next(self, flight: Flight) -> bool:
        """Whether no older round travels on the flight's channels."""
        return next(other for other in self._travelling if other.channel == flight.channel) is flight

    def _gather(self, flight: Flight, round_: Round, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        """The chunk has travelled: takes what it brings in its place, and what of it did not leave."""
        values, index = flight.values.chunks[chunk.index], chunk.index
        given = float(flight.weights[index]) * sum(round_.out_weights.values())
        if given and not is_finite(mine):
            given = 0.0
            self.context.counters.refuse(self.context.endpoint.rank)
        with self.context.replica.space.engine(chunk):
            flight.empty[index] = self._return(values, float(flight.taken[index]), given, mine) and not arrived
            flight.brought[index] = flight.taken[index] - given
            for peer, theirs in arrived.items():
                if is_finite(theirs):
                    share = float(np.frombuffer(round_.told[peer])[index])
                    add_scaled(values, share, theirs)
                    flight.brought[index] += share
                else:
                    self.context.counters.refuse(peer)

    @staticmethod
    def _return(values: Array, taken: float, given: float, mine: Array) -> bool:
        """values <- taken * values - given * mine. Whether that is nothing: all was given as it is."""
        exact = mine.dtype == values.dtype
        if given == taken and exact:
            values.fill(0)
            return True
        scale(values, taken - given if exact else taken)
        if given and not exact:
            add_scaled(values, -given, mine)
        return False

    def _land(self, flight: Flight, guard: Callable[[Chunk], Any]) -> None:
        """The oldest flight's mass becomes the worker's, through the correction; by the thread that `guard` is for."""
        self._flying.remove(flight)
        for chunk, values in zip(self.context.replica.chunks, flight.values.chunks, strict=True):
            if not flight.empty[chunk.index]:
                brought = float(flight.brought[chunk.index])
                with guard(chunk):
                    add_into(chunk.correction, chunk.correction, values)
                    add_scaled(chunk.correction, -brought, chunk.source)
                    chunk.pending = True
        self.weights = self.weights + flight.brought

    async def _arrival(self, due: list[Flight]) -> None:
        await self._moved.until(lambda: all(flight.done for flight in due))

    async def _settled(self) -> None:
        """All that is under way arrives. The training thread waits, or takes no further step."""
        await super()._settled()
        while self._flying:
            self._land(self._flying[0], self.context.replica.space.engine)


def _require_remainder(topology: Topology, rank: int) -> None:
    """Who gave everything away would have no weight to divide by until something comes.

    Raises:
        TopologyError: there is a round in which this rank keeps nothing.
    """
    for round_ in range(topology.period or 1):
        if sum(topology.out_weights(rank, round_).values()) > 1.0 - 1e-9:
            raise TopologyError(
                f"topology {topology.name!r}: rank {rank} keeps nothing of its own in round {round_} "
                f"(W[{rank}, {rank}] is 0), but with osgp what it gave is away for tau steps; set a laziness, such as 0.5"
            )
