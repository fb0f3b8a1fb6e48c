"""The Endpoint over a virtual clock: thousands of ranks in one process, on one thread, the same for the same seed.

`SimulatedWorld` owns one `Scheduler` for all ranks and a heap of timed events. It steps the tasks that can go on, then
moves the clock to the next event; computing costs no virtual time, only `sleep` and messages do.

How a message travels (`Links` gives the times). Up to `eager_limit` bytes it travels at once and waits at the receiver
for a receive; a longer one announces itself and its bytes travel when the receiver has posted the receive and has said
so, as in MPI's rendezvous protocol: a program that counts on unlimited buffering deadlocks here, and is told so.
A send is done when the last byte has arrived. Its bytes are read at a moment of the simulator's choice until then
(`snapshot`), so a sender who changes the array too early sends something else and its tests see it.
"""

from __future__ import annotations

import gc
import heapq
import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from hvd_gossip.errors import ConfigError, HvdGossipError
from hvd_gossip.tasks import Cancelled, Future, Scheduler, describe
from hvd_gossip.transport.endpoint import Array
from hvd_gossip.transport.simulated_endpoint import SimulatedEndpoint
from hvd_gossip.transport.simulated_links import Links
from hvd_gossip.transport.simulated_messages import Send

__all__ = ["DeadlockError", "SimulatedEndpoint", "SimulatedWorld"]

Snapshot = Literal["latest", "random"]
InFlight = Literal["delivered", "dropped", "random"]

_LISTED = 20
"""So many waiting tasks a deadlock report lists."""


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Python's cyclic collector walks all ranks' objects again and again, for half of the time at 1,024 ranks.

    Those that exist already are left out, unless the program has such objects of its own: unfreezing would free both.
    """
    thresholds, ours = gc.get_threshold(), gc.get_freeze_count() == 0
    gc.set_threshold(100_000, 50, 50)
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if ours:
            gc.unfreeze()


class DeadlockError(HvdGossipError, RuntimeError):
    """Tasks wait, and nothing that could wake them is left to happen; the message lists who waits for what."""


class SimulatedWorld:
    """`size` ranks, their links and their common clock.

    Args:
        size: number of ranks, at least 1.
        links: latency, bandwidth and random delay between them.
        seed: seeds every random choice here and each endpoint's `rng`; the same seed gives the same run.
        eager_limit: messages up to so many bytes travel without waiting for their receive; 0 makes all of them wait,
            infinity none.
        snapshot: when the bytes of an array are read: "latest", as the last byte arrives, or "random", at a random
            moment between the start of the transfer and then.
        in_flight: what becomes of messages that a dead rank had sent and that have not arrived, or not been received
            when its death is detected: "delivered", "dropped", or "random" (each stream is cut at a random message).
            Nothing arrives after the detection, and nothing whose bytes had not begun to travel.
        payload_scale: each byte of an array stands for so many: a model of 100 MB is then simulated without holding
            100 MB a rank. What is sent as bytes, the control messages, is as long as it is.
        detection_delay: seconds from a death until the others' operations that name the dead rank fail.

    Attributes:
        endpoints: one Endpoint a rank.
        events: events that the clock has gone through.
        plain: whether a message's times follow from its route and length alone.
        route: that of every two ranks, if all links are alike; see `Links.route`.
        out_free, in_free: by network interface, when it can send or take in the next message.
        dead: the ranks killed so far.
        detected: those of them that the others know of.
    """

    def __init__(
        self,
        size: int,
        *,
        links: Links | None = None,
        seed: int = 0,
        eager_limit: float = 4096,
        snapshot: Snapshot = "latest",
        in_flight: InFlight = "delivered",
        detection_delay: float = 0.0,
        payload_scale: float = 1.0,
    ) -> None:
        if size < 1:
            raise ConfigError(f"a world has at least 1 rank, not {size}")
        if snapshot not in ("latest", "random") or in_flight not in ("delivered", "dropped", "random"):
            raise ConfigError(f"unknown snapshot {snapshot!r} or in_flight {in_flight!r}; see SimulatedWorld")
        if not 0 < payload_scale < math.inf:
            raise ConfigError(f"payload_scale must be positive and finite, not {payload_scale}")
        if detection_delay < 0:
            raise ConfigError(f"detection_delay must be at least 0, not {detection_delay}")
        self.links = links or Links()
        self.links.validate(size)
        self.seed = seed
        self.size = size
        self.eager_limit = eager_limit
        self.payload_scale = payload_scale
        self.random_snapshot = snapshot == "random"
        self.plain = self.links.plain and not self.random_snapshot
        self.route = self.links.route(0, 1) if self.links.alike else None
        self.in_flight = in_flight
        self.detection_delay = detection_delay
        self.stream = random.Random(f"links {seed}")
        self.scheduler = Scheduler()
        self.time = 0.0
        self.events = 0
        self.dead: set[int] = set()
        self.shared: dict[str, Array] = {}
        self.detected: set[int] = set()
        self._heap: list[tuple[float, int, Callable[[Any], None] | None, Any]] = []
        self._sequence = 0
        self._stale_timers = 0
        self._finished = False
        self._polled: list[tuple[Callable[[], bool], Future[None]]] = []
        self._cut: set[tuple[int, int, int]] = set()
        interfaces = -(-size // self.links.ranks_per_interface)
        self.out_free = [0.0] * interfaces
        self.in_free = [0.0] * interfaces
        self.endpoints = [SimulatedEndpoint(self, rank) for rank in range(size)]

    @property
    def now(self) -> float:
        """Virtual seconds since the world began."""
        return self.time

    def run(self, until: Callable[[], bool] | Iterable[Future[Any]] | None = None, max_time: float = math.inf) -> bool:
        """Goes on until a condition holds (looked at after every event), until futures are done, or, by default, until
        every task is done and no event is left.

        Args:
            until: a predicate, or futures; a future's error is raised here, a dead rank's cancellation is not.
            max_time: the virtual time at which to stop in any case.

        Returns:
            Whether it ended because of `until`; False when it stopped at `max_time`.

        Raises:
            DeadlockError: nothing can happen any more, and `until` is not met.
            RuntimeError: a task failed that nobody awaits.
        """
        with rare_garbage_collection():
            if until is None or callable(until):
                return self._loop(until, max_time)
            return self._run_until_done(list(until), max_time)

    def kill(self, rank: int, at: float | None = None) -> None:
        """Lets a rank die at a virtual time (default: now), without a word to the others.

        Its tasks are cancelled. After the detection delay the others' pending and later operations that name it fail
        with PeerFailedError, and so does, when it would have arrived, whatever is under way to it.
        """
        if not 0 <= rank < self.size:
            raise ValueError(f"rank {rank} is not in [0, {self.size})")
        self.call_at(self.time if at is None else at, lambda: self._die(rank))

    def call_at(self, time: float, function: Callable[[], object]) -> None:
        """Calls a function at a virtual time, outside every rank: for scripted faults and measurements."""
        if time < self.time:
            raise ValueError(f"time {time} has passed: it is {self.time}")
        self.push(time, _call, function)

    def push(self, time: float, call: Callable[[Any], None] | None, argument: Any) -> None:
        """Schedules `call(argument)`; without `call`, the argument is a timer's future. For the endpoints."""
        self._sequence = sequence = self._sequence + 1
        heapq.heappush(self._heap, (time, sequence, call, argument))

    def add_poll(self, ready: Callable[[], bool], future: Future[None]) -> None:
        """Looks at `ready` after every event from now on. For the endpoints."""
        self._polled.append((ready, future))

    def forget_timer(self) -> None:
        """Counts a cancelled timer, and sweeps the heap when half of it is cancelled ones. For the endpoints."""
        self._stale_timers += 1
        if self._stale_timers > 1024 and self._stale_timers * 2 > len(self._heap):
            self._heap[:] = [event for event in self._heap if event[2] is not None or not event[3].done()]
            heapq.heapify(self._heap)
            self._stale_timers = 0

    def loses(self, send: Send) -> bool:
        """Whether a message of a dead rank is lost. Once one is, so are all later ones of its channel."""
        if send.source not in self.dead or self.in_flight == "delivered":
            return False
        stream = (send.source, send.dest, send.channel)
        if self.in_flight == "random" and stream not in self._cut and self.stream.random() < 0.5:
            return False
        self._cut.add(stream)
        return True

    def _run_until_done(self, futures: list[Future[Any]], max_time: float) -> bool:
        open_count = len(futures)
        failed: list[BaseException] = []

        def finish(future: Future[Any]) -> None:
            nonlocal open_count
            open_count -= 1
            error = future.error()
            if error is not None and not isinstance(error, Cancelled):
                failed.append(error)
            self._finished = open_count == 0 or bool(failed)

        self._finished = open_count == 0
        for future in futures:
            future.add_callback(finish)
        done = self._loop(None, max_time, wanted=True)
        if failed:
            raise failed[0]
        return done

    def _loop(self, until: Callable[[], bool] | None, max_time: float, wanted: bool = False) -> bool:
        """Goes from event to event until `until` holds or, if `wanted`, until `_finished` is set."""
        heap, ready, pop = self._heap, self.scheduler.ready, heapq.heappop
        while True:
            while ready:
                ready.popleft().step()
            if self._polled and self._test_polled():
                continue
            if (wanted and self._finished) or (until is not None and until()):
                return True
            if not heap:
                return self._end(until is None and not wanted)
            if heap[0][0] > max_time:
                self.time = max(self.time, max_time)
                return False
            time, _, call, argument = pop(heap)
            if call is not None:
                self.time = time
                call(argument)
            elif not argument.done():
                self.time = time
                argument.set_result(None)
            else:
                self._stale_timers -= 1
                continue
            self.events += 1

    def _test_polled(self) -> bool:
        """Looks at every polled condition once; True if one holds. Cancelled ones are forgotten."""
        polled, self._polled = self._polled, []
        for ready, future in polled:
            if not future.done() and ready():
                future.set_result(None)
            elif not future.done():
                self._polled.append((ready, future))
        return len(self._polled) < len(polled)

    def _end(self, wanted: bool) -> bool:
        """No event is left: fine if that is what the caller wants and no task waits."""
        waiting = [(endpoint.rank, task) for endpoint in self.endpoints for task in endpoint.open_tasks()]
        if wanted and not waiting:
            return True
        lines = [
            f"rank {rank}: {describe(task.what)}, awaiting {task.waiting_for()}" for rank, task in waiting[:_LISTED]
        ]
        if len(waiting) > _LISTED:
            lines.append(f"and {len(waiting) - _LISTED} more")
        raise DeadlockError(
            f"deadlock at {self.time:.6g} s: no event is left, and {len(waiting)} tasks wait\n  " + "\n  ".join(lines)
        )

    def _die(self, rank: int) -> None:
        if rank in self.dead:
            return
        self.dead.add(rank)
        self.endpoints[rank].die()
        self.push(self.time + self.detection_delay, self._detect, rank)

    def _detect(self, dead: int) -> None:
        self.detected.add(dead)
        for endpoint in self.endpoints:
            if endpoint.rank not in self.dead:
                endpoint.learn_death(dead)
        self.endpoints[dead].return_letters()


def _call(function: Callable[[], object]) -> None:
    function()
