"""The contract of an algorithm: a few methods that the training thread or the engine call, and a coroutine or two.

An algorithm knows its `Context` only: no framework, no MPI. Real training drives it from two threads (the training
thread calls `step`, the engine everything marked "engine"); the simulator drives the same object from one.
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from hvd_gossip.algorithms.means import mean_of_finite
from hvd_gossip.algorithms.settings import GENERAL, MixingSettings
from hvd_gossip.buffers.replica import Replica
from hvd_gossip.errors import ConfigError
from hvd_gossip.observe.counters import Counters
from hvd_gossip.topology.base import Topology
from hvd_gossip.transport.endpoint import Array, Endpoint

R = TypeVar("R")
Needs = Literal[
    "none",
    "symmetric",
    "fixed-symmetric",
    "lazy-symmetric",
    "doubly-stochastic",
    "column-stochastic",
    "bipartite",
    "tree",
]
"""Kinds of topology; `topology.validation.require_needs` says what each means."""
Wait = Callable[[], Awaitable[None]]
"""What `step` yields: a coroutine function that must finish, on the engine, before the step goes on."""
ExactAverage = Callable[[str, list[Array]], Awaitable[int]]
"""`await exact_average(name, arrays)` replaces the arrays, in place, by their mean over the live ranks; returns how many."""


@dataclass(frozen=True)
class Context:
    """All that an algorithm may use.

    Attributes:
        endpoint: access to the other ranks.
        replica: this worker's parameters and correction.
        topology: whom to mix with, and with which weights.
        settings: period, order, wire type and the rest.
        channel: the first of the ALGORITHM_STRIDE channels that are this algorithm's own.
        post: runs a function soon on the engine; callable from the training thread (at once, in the simulator).
        exact_average: the exact mean over the live ranks (a collective: every live rank calls it with the same name).
        counters: what to count for metrics.
    """

    endpoint: Endpoint
    replica: Replica
    topology: Topology
    settings: MixingSettings
    channel: int
    post: Callable[[Callable[[], None]], None]
    exact_average: ExactAverage
    counters: Counters


class Algorithm(ABC):
    """Base of every algorithm; subclasses are registered in `hvd_gossip.algorithms.registry`.

    Attributes:
        phase: grows at every point that all live workers pass together: at the end of a pause, and of a rest. It names exact
            averages, so that a worker that has missed some agrees on the names of the next ones.

    Class attributes:
        name: what `--algorithm` says.
        paper: authors, title, venue and year.
        averages: "gradients" (before the update; the collectives do it) or "parameters" (gossip).
        synchronous: whether the k-th exchange of a worker meets the k-th exchange of its neighbours.
        needs: the kind of topology: "none", "symmetric" (and doubly stochastic), "fixed-symmetric" (the same in every round),
            "lazy-symmetric" (so, and no eigenvalue below -1/3), "doubly-stochastic", "column-stochastic", "bipartite" or
            "tree".
        default_topology: what topology "auto" means.
        orders: the values of `mixing_order` that it knows, its default first; empty: exchanges have no place in a step.
        heeds: the settings that mean something to it, beside mixing_order and those in `settings.GENERAL`.
        is_wrapped_alone: whether one worker does what the wrapped optimizer does, bit by bit.
        overwritable: whether parameters that are overwritten without a pause, as by load_state_dict() between two steps, simply
            take the place of this worker's; False where messages under way, or a server, hold what was before and bring it back.
            (A broadcast pauses, and is safe with all.)
        central: whether one model is kept apart from the workers', by servers or in memory that they share: a worker's own first
            parameters then count for nothing, and `average` shows that model.
        one_host: whether all its workers must be on one host.
        waits_for: whom a worker waits for in a step, for the table of algorithms; empty: what `averages` and `synchronous` say.
        memory: what it keeps beside parameters and optimizer, in multiples of the parameters' size.
        good_for, bad_for: one phrase each, for the table of algorithms.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    averages: ClassVar[Literal["gradients", "parameters"]] = "parameters"
    synchronous: ClassVar[bool]
    needs: ClassVar[Needs]
    default_topology: ClassVar[str]
    orders: ClassVar[tuple[str, ...]] = ()
    heeds: ClassVar[frozenset[str]] = frozenset()
    is_wrapped_alone: ClassVar[bool] = True
    overwritable: ClassVar[bool] = True
    central: ClassVar[bool] = False
    one_host: ClassVar[bool] = False
    waits_for: ClassVar[str] = ""
    memory: ClassVar[str]
    good_for: ClassVar[str]
    bad_for: ClassVar[str]

    def __init__(self, context: Context) -> None:
        self.context = context
        self.phase = 0

    @classmethod
    def validate(cls, settings: MixingSettings) -> None:
        """Checks the settings, before anything is sent.

        Raises:
            ConfigError: one has no meaning under this algorithm, or not this value.
        """
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if field.name not in cls.heeds | GENERAL | {"mixing_order"} and value != field.default:
                raise ConfigError(
                    f"{field.name}={value!r} has no meaning with algorithm {cls.name!r}, which heeds "
                    f"{', '.join(sorted(cls.heeds)) or 'no such settings'}; leave {field.name} at {field.default!r}"
                )
        if settings.mixing_order not in ("auto", *cls.orders):
            raise ConfigError(
                f"mixing_order={settings.mixing_order!r} has no meaning with algorithm {cls.name!r}: "
                f"leave it at auto{''.join(f' or {order}' for order in cls.orders)}"
            )

    @classmethod
    def rounds_under_way(cls, settings: MixingSettings) -> int:
        """How many exchanges with all neighbours may be under way at once, each with buffers of its own."""
        return 1

    @property
    def order(self) -> str:
        """The value of `mixing_order` in force."""
        wanted = self.context.settings.mixing_order
        return self.orders[0] if wanted == "auto" else wanted

    @abstractmethod
    def start(self) -> None:
        """Engine: spawns what runs in the background."""

    @abstractmethod
    def step(self, update: Callable[[], R]) -> Generator[Wait, None, R]:
        """Training thread: one step. Calls `update` (the wrapped optimizer's step) exactly once.

        A generator: it yields coroutine functions that the caller has run to completion on the engine before it goes on;
        it yields nothing when there is nothing to wait for. Returns what `update` returned.
        """

    @abstractmethod
    async def pause(self) -> None:
        """Engine: finishes the exchange under way, tells the peers not to wait for this worker, and leaves no correction
        half-made. Parameters plus correction then stand still on this worker until `resume`."""

    @abstractmethod
    async def rest(self) -> None:
        """Engine: as `pause`, but alone: the others go on without this worker, which at most answers them. It takes part in
        no pause and no exact average of theirs, until all rest and all `resume` with one number."""

    @abstractmethod
    async def resume(self, phase: int | None = None) -> None:
        """Engine: goes on after `pause` or `rest`. A collective point: every live rank calls it between the same two exact
        averages, so that synchronous algorithms count their exchanges from the same place again.

        Args:
            phase: after a rest: the new phase, beyond all of those that the live workers were in. Default: the next one.
        """

    @abstractmethod
    async def depart(self) -> None:
        """Engine: announces that this worker takes part in no further exchange, and stops what `start` spawned once no
        peer can be waiting for an answer."""

    async def linger(self) -> None:
        """Engine: called after `depart`, when this rank has departed from the collectives as well: returns when no peer needs it
        any more. Meanwhile the others train, and take exact averages, without it."""

    def settle(self) -> None:
        """Training thread, while nothing is under way: applies what remains of the correction to the parameters."""
        self.context.replica.fold()

    def preview(self) -> None:
        """Training thread, while paused and held: shows the parameters as `settle` would make them, to be undone."""
        self.context.replica.preview(itertools.repeat(1.0, len(self.context.replica.chunks)))

    async def average(self, name: str) -> int:
        """Engine, while paused, held and previewed: replaces the replica's parameters by their exact mean over the live ranks,
        less those on which they are not finite.

        Returns:
            The number of ranks averaged over.
        """
        replica = self.context.replica
        return await mean_of_finite(self.context, name, replica.flats, [chunk.x for chunk in replica.chunks])

    def forget(self) -> None:
        """Training thread, while paused on all workers: their parameters were overwritten, as by a broadcast. What the algorithm
        remembers of how it came to the former ones is of no use."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the parameters (plain Python and NumPy values)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict()`'s value."""
