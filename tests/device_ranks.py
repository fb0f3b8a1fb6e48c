"""Ranks with a training thread each, the wrapper's worker and the simulator beneath: all real but MPI, the clock and the device.

One thread runs at a time. A rank's training thread goes on until it waits, for the engine or for its own computation; then
the simulated world runs, with the engines' coroutines, until what some training thread waits for is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.registry import find_algorithm, make_algorithm
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.buffers.cuda import CudaSpace
from hvd_gossip.buffers.replica import Replica
from hvd_gossip.collectives import Collectives
from hvd_gossip.observe.counters import Counters
from hvd_gossip.observe.metrics import NullMetrics
from hvd_gossip.stepper import Stepper
from hvd_gossip.tasks import Future
from hvd_gossip.topology import fit_topology, make_topology
from hvd_gossip.transport.endpoint import ALGORITHM_BASE
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.transport.simulated_links import Links, uniform
from hvd_gossip.worker import Worker
from tests.device_endpoint import DeviceEndpoint
from tests.standin_cupy import CUPY, DeviceArray, asarray
from tests.standin_streams import Stream, Thread, acting

CHUNK_BYTES = 64
TIME_OUT = 30.0
"""Real seconds."""


class Rank:
    """One rank, and the engine that its worker talks to.

    Args:
        flats: what its parameters begin with.
        direct: whether MPI takes device memory; None: the parameters are in the host's memory.

    Attributes:
        x: the parameters.
        worker: drives the algorithm.
        waited: see Engine.
    """

    waited = 0.0

    def __init__(
        self, world: SimulatedWorld, rank: int, flats: list[np.ndarray], algorithm: str, settings: MixingSettings,
        topology: str, direct: bool | None,
    ) -> None:  # fmt: skip
        self.number = rank
        self.seen: list[np.ndarray] = []
        self._training = Thread(Stream(kind="training"))
        self._endpoint = endpoint = DeviceEndpoint(world.endpoints[rank])
        self._commands: list[Callable[[], Any]] = []
        self._turn, self._yielded = threading.Semaphore(0), threading.Semaphore(0)
        self.awaited: Future[Any] | None = None
        self.error: BaseException | None = None
        with acting(self._training):
            self.x: list[Any] = [flat.copy() if direct is None else asarray(flat) for flat in flats]
        kind, options, space = find_algorithm(algorithm), {}, None
        if direct is not None:
            stream = Stream(non_blocking=True)
            staged = CudaSpace(0, False, xp=CUPY, stream=stream)
            pointer = self._training.stream.ptr
            space = CudaSpace(0, direct, lambda: pointer, xp=CUPY, stream=stream)
            options = {"space_of": lambda _: staged}
        self._collectives = Collectives(
            endpoint, stall_check_disable=True, chunk_bytes=CHUNK_BYTES, eager_bytes=0, **options
        )
        with acting(self._training):
            replica = Replica(self.x, CHUNK_BYTES, space)
            context = Context(
                endpoint, replica, fit_topology(make_topology(_named(topology, kind), world.size), kind.needs), settings,
                ALGORITHM_BASE, self._commands.append, self._collectives.exact_average, Counters(),
            )  # fmt: skip
            stepper = Stepper(self, NullMetrics(), context.counters, 1.0, lambda *_: None)  # type: ignore[arg-type]
            self.worker = Worker(self, make_algorithm(kind, context), stepper)  # type: ignore[arg-type]

    def begin(self, main: Callable[[Rank], None]) -> None:
        """Starts the training thread, which waits for its turn."""
        with acting(self._endpoint.thread):
            self._collectives.start()
        self._thread = threading.Thread(target=self._main, args=[main], daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Lets the training thread go on to its next wait; then the engine takes what it was told."""
        with acting(self._training):
            self._turn.release()
            assert self._yielded.acquire(timeout=TIME_OUT)
        if self.error is not None:
            raise self.error
        commands, self._commands[:] = list(self._commands), []
        with acting(self._endpoint.thread):
            for command in commands:
                command()

    # What the training thread calls.

    def compute(self, seconds: float) -> None:
        """The training thread computes."""
        self._wait(lambda: self._endpoint.sleep(seconds))

    def check(self) -> None:
        """See Engine."""

    def call(self, start: Callable[[], Any], name: str = "") -> Any:
        """See Engine."""

        def begin() -> Any:
            begun = start()
            return begun if isinstance(begun, Future) else self._endpoint.spawn(begun, name)

        return self._wait(begin)

    def _wait(self, begin: Callable[[], Future[Any]]) -> Any:
        def command() -> None:
            self.awaited = begin()

        self._commands.append(command)
        self._yielded.release()
        assert self._turn.acquire(timeout=TIME_OUT)
        awaited, self.awaited = self.awaited, None
        assert awaited is not None
        return awaited.result()

    async def _start(self) -> None:
        self.worker.algorithm.start()

    def _main(self, main: Callable[[Rank], None]) -> None:
        assert self._turn.acquire(timeout=TIME_OUT)
        try:
            self.worker.call(self._start, "starting the algorithm")
            main(self)
        except BaseException as error:
            self.error = error
        self._yielded.release()


def _named(topology: str, kind: Any) -> str:
    return kind.default_topology if topology == "auto" else topology


def run_ranks(ranks: list[Rank], world: SimulatedWorld, main: Callable[[Rank], None]) -> None:
    """Runs `main(rank)` on every rank's training thread."""
    for rank in ranks:
        rank.begin(main)
    going = list(ranks)
    for rank in going:
        rank.go_on()
    while going := [rank for rank in going if rank.awaited is not None]:
        world.run(until=lambda: any(_done(rank) for rank in going))
        for rank in going:
            if _done(rank):
                rank.go_on()


def _done(rank: Rank) -> bool:
    return rank.awaited is not None and rank.awaited.done()


def make_world(size: int, seed: int = 0) -> SimulatedWorld:
    """Slow links, and arrays that are read at random moments while they are sent."""
    return SimulatedWorld(
        size, links=Links(1e-3, 1e6, uniform(0.0, 0.05)), seed=seed, snapshot="random", eager_limit=32
    )


def on_host(array: Any) -> np.ndarray:
    """A copy; on the training thread."""
    return array.get() if isinstance(array, DeviceArray) else array.copy()
