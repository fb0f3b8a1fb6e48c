"""What D-PSGD, SGP and their kin share: rounds in which every worker meets its neighbours of that round.

With mixing_order "overlap" the exchange of x(k) starts as soon as step k has made it, runs beside the next gradient, and is
folded in by step k + 1: nobody waits for a message that fits inside the compute. With "sequential" a step ends by its own
exchange. A subclass says what one exchange adds to the correction and how the correction is applied.

Two threads: `_steps` and `_begun` belong to the training thread, `_finished` to the engine; each reads the other's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from hvd_gossip.algorithms.base import Algorithm, Context, Wait
from hvd_gossip.algorithms.lanes import Lanes
from hvd_gossip.algorithms.meeting import AWAY, GONE, RESTING, Meeting
from hvd_gossip.algorithms.settings import OUTER
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.tasks import Signal
from hvd_gossip.transport.endpoint import Array

R = TypeVar("R")


@dataclass(frozen=True)
class Round:
    """One exchange, less the edges to workers that are absent.

    Attributes:
        in_weights: W[self, j] of each in-neighbour.
        out_weights: W[j, self] of each out-neighbour.
        told: each neighbour's announcement.
    """

    in_weights: dict[int, float]
    out_weights: dict[int, float]
    told: dict[int, bytes]


class SynchronousMixing(Algorithm):
    """Base of the algorithms whose k-th exchange is with the neighbours' k-th."""

    synchronous = True
    orders: ClassVar[tuple[str, ...]] = ("overlap", "sequential")
    heeds = frozenset({"mixing_period", "global_average_every", "wire_dtype", *OUTER})
    memory = "1 x"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings, channel = context.settings, context.channel
        neighbours = sorted(context.topology.neighbours(context.endpoint.rank))
        self._meeting = Meeting(context.endpoint, neighbours, channel, settings.wait_timeout)
        self._lanes = Lanes(context.endpoint, context.replica, settings, context.counters, channel + 1, corrected=False)
        self._steps = 0
        self._begun = 0
        self._finished = 0
        self._moved = Signal("the exchange of this step")

    @abstractmethod
    def apply(self, update: Callable[[], R]) -> R:
        """Training thread: calls `update` and applies the correction."""

    @abstractmethod
    def announcement(self, weight: float) -> bytes:
        """Engine: what a neighbour must know before the exchange; `weight` is W[neighbour, self], 0 if it only sends."""

    def announcement_to(self, peer: int, weight: float) -> bytes:
        """Engine: `announcement`, where it is not the same for all neighbours."""
        return self.announcement(weight)

    def announcements(self, peers: Sequence[int], out_weights: Mapping[int, float]) -> dict[int, bytes]:
        """Engine: `announcement_to` for each neighbour of a round."""
        return {peer: self.announcement_to(peer, out_weights.get(peer, 0.0)) for peer in peers}

    @abstractmethod
    def mix(self, round_: Round, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
        """Engine: adds to the correction what one chunk's exchange gives; see `lanes.Mix`."""

    @abstractmethod
    async def correct_to_mean(self, name: str) -> None:
        """Engine: makes the correction what leads to the exact mean over the live workers."""

    def load(self, number: int, exact: bool) -> None:
        """Training thread: called when a step is complete after which exchange `number`, or the exact average, begins."""

    def complete(self) -> None:
        """Engine: called when an exchange is complete, before the training thread may go on."""

    def start(self) -> None:
        self._meeting.start()

    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        if self.order == "overlap":
            if self._finished < self._begun:
                yield self._settled
            result = self.apply(update)
            self._advance()
            return result
        result = self.apply(update)
        if self._advance():
            yield self._settled
            self.settle()
        return result

    def settle(self) -> None:
        self.apply(_no_update)

    async def pause(self) -> None:
        await self._settled()
        await self._meeting.announce(AWAY, self.phase, self._begun)

    async def rest(self) -> None:
        await self._settled()
        await self._meeting.announce(RESTING, self.phase, self._begun)

    async def resume(self, phase: int | None = None) -> None:
        if phase is not None:
            self._meeting.end_rests(phase)
        self.phase = self.phase + 1 if phase is None else phase
        self._steps = self._begun = self._finished = 0
        self._meeting.forget_before(self.phase)

    async def depart(self) -> None:
        await self._settled()
        await self._meeting.announce(GONE, self.phase, self._begun)
        self._meeting.stop()

    def _advance(self) -> bool:
        """Training thread: counts the step and starts the exchange that is due after it, if one is."""
        self._steps += 1
        exact = self._averages_after(self._steps)
        if not exact and self._steps % self.context.settings.mixing_period:
            return False
        number = self._begun
        self.load(number, exact)
        self._begun += 1
        self.context.replica.space.updated()
        self.context.post(lambda: self._begin(number, exact))
        return True

    def _averages_after(self, step: int) -> bool:
        """Whether the exact average is due after the step."""
        every = self.context.settings.global_average_every
        return every > 0 and step % every == 0

    def _begin(self, number: int, exact: bool) -> None:
        coroutine = self._average_exactly(number) if exact else self._exchange(number)
        self.context.endpoint.spawn(coroutine, (self.name, "exchange", number))

    async def _settled(self) -> None:
        await self._moved.until(lambda: self._finished >= self._begun)

    def _finish(self) -> None:
        self.complete()
        self._finished += 1
        self._moved.set()

    async def _average_exactly(self, number: int) -> None:
        await self.correct_to_mean(f"{self.name}.{self.context.channel}.{self.phase}.{number}")
        self._finish()

    async def _exchange(self, number: int) -> None:
        round_ = await self._meet(number)
        await self.swap(round_)
        self._count(round_)
        self._finish()

    async def swap(self, round_: Round) -> None:
        """Engine: sends and receives what one exchange moves, and has it mixed."""
        await self._lanes.exchange(
            list(round_.in_weights),
            list(round_.out_weights),
            lambda chunk, mine, arrived: self.mix(round_, chunk, mine, arrived),
        )

    async def _meet(self, number: int, announcement: Callable[[float], bytes] | None = None) -> Round:
        """Joins the exchange and learns which neighbours take part.

        Args:
            announcement: what to tell a neighbour, by its weight; `self.announcements` by default.
        """
        rank, topology, place = self.context.endpoint.rank, self.context.topology, number + self.phase
        ins, outs = topology.in_weights(rank, place), topology.out_weights(rank, place)
        peers = [*{**ins, **outs}]
        if announcement is None:
            announcements = self.announcements(peers, outs)
        else:
            announcements = {peer: announcement(outs.get(peer, 0.0)) for peer in peers}
        told = await self._meeting.join(self.phase, number, announcements)
        return Round({j: w for j, w in ins.items() if j in told}, {j: w for j, w in outs.items() if j in told}, told)

    def _count(self, round_: Round) -> None:
        counters = self.context.counters
        counters.bytes_sent += self._lanes.nbytes * len(round_.out_weights)
        counters.bytes_received += self._lanes.nbytes * len(round_.in_weights)
        counters.exchanges += len(round_.in_weights)
        for peer in round_.in_weights:
            counters.last_peer = peer


def _no_update() -> None:
    """The update of a step that has already made its own."""
