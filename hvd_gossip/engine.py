"""The progress thread: the only thread that calls MPI.

It drains a command queue, steps the coroutines that can go on, looks at what is outstanding, and backs off when nothing
moves. The wait on the command queue *is* the back-off: a command wakes it at once.

Shared state: `_waiters` (how many callers wait) and `waited` (their seconds, in all) are guarded by `_lock`; `failure` is
written once by the engine's thread and read by others; everything else belongs to the engine's thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from queue import Empty
from typing import Any, Generic, Protocol, TypeVar

from hvd_gossip.errors import EngineError, WaitTimeoutError
from hvd_gossip.mailslot import MailSlot
from hvd_gossip.observe.waits import StallWatch, WaitLimits
from hvd_gossip.placement import Placement, sharpen_timers
from hvd_gossip.tasks import Future, Scheduler, Task, describe
from hvd_gossip.transport.endpoint import Endpoint

T = TypeVar("T")
log = logging.getLogger("hvd_gossip")

SPIN_SECONDS = 200e-6
"""How long the engine looks again and again, after the last thing that moved, before it sleeps at all."""
FIRST_SLEEP = 20e-6
"""The first sleep of the back-off; each one is twice as long, up to `backoff_max`."""
URGENT_SPIN = 2e-3
"""The same while a caller waits: ranks seldom call at the same instant, and the shortest sleep of a busy machine is long."""
URGENT_SLEEP = 50e-6
"""The longest sleep while a caller waits, at first."""
URGENT_SHARE = 0.01
"""A long wait may become longer by so much of itself: by then somebody is late, and polling for it takes a core's time."""
IDLE_AFTER = 0.25
"""After so long without movement the engine only listens, and may sleep `IDLE_FACTOR` times `backoff_max`, or longer:"""
IDLE_FACTOR = 4
IDLE_SHARE = 0.01
"""so that its looks, which take long on a slow or busy machine, cost no more than this share of a core,"""
IDLE_LONGEST = 20e-3
"""but by itself never longer than so many seconds."""
CHECK_EVERY = 0.2
"""How often a waiting caller looks whether the engine has failed."""
CONNECTING = 1800.0
"""Seconds for `MPI_Init` at least: it returns when all ranks have called it, and one may start, or import, long after another."""
_give_way: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))
"""Lets another thread have the core. Not time.sleep(0): since Python 3.11 that sets a timer, which takes 50 to 100 us."""


class ProgressEndpoint(Endpoint, Protocol):
    """What the engine needs of an endpoint beyond the protocol that coroutines use."""

    def progress(self) -> bool: ...

    def next_timer(self) -> float | None: ...


class Handle(Generic[T]):
    """The result of something that runs on the engine, for another thread. One thread waits for it."""

    __slots__ = ("_engine", "_error", "_event", "_result", "_what")

    def __init__(self, engine: Engine, what: Callable[[], str]) -> None:
        self._engine = engine
        self._event = threading.Lock()
        self._event.acquire()
        self._what = what
        self._result: T | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether `wait()` would return, or raise, at once."""
        return not self._event.locked()

    def wait(self, timeout: float | None = None) -> T:
        """The result, once it is there.

        Args:
            timeout: seconds; None is the engine's `limits.timeout`.

        Raises:
            EngineError: the engine failed. WaitTimeoutError: the time is over. Or what the coroutine raised.
        """
        if not self.done():
            self._engine.wait_for(self._event, self._what, timeout)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def finish(self, future: Future[T]) -> None:
        """Engine: takes over the result of a completed future."""
        self._error = future.error()
        if self._error is None:
            self._result = future.result()
        self._event.release()


class Engine:
    """Runs coroutines over an endpoint in a thread of its own.

    Args:
        connect: makes the endpoint, called on the engine's thread: the first MPI call of the process may be there.
        spin: seconds of looking again at once before sleeping; only for a waiting caller where ranks share cores.
        backoff_max: longest sleep, seconds, while something is under way.
        limits: after how long a caller's wait is reported, and when it fails.

    Attributes:
        placement: where the thread runs while a caller waits; `connect` may set what fits this host.
        on_wait: called, by the thread that waited, as `on_wait(what, start, end)` after each wait, in seconds; None: nobody.
    """

    def __init__(
        self,
        connect: Callable[[Scheduler], ProgressEndpoint],
        *,
        spin: float = SPIN_SECONDS,
        backoff_max: float = 1e-3,
        limits: WaitLimits | None = None,
    ) -> None:
        self.scheduler = Scheduler(lambda task, error: self._on_failure(error, describe(task.what)))
        self.limits = limits or WaitLimits()
        self.waited = 0.0
        self.placement = Placement()
        self.on_wait: Callable[[str, float, float], None] | None = None
        self.failure: EngineError | None = None
        self.endpoint: ProgressEndpoint
        self._connect = connect
        self._spin = spin
        self._backoff_max = backoff_max
        self._commands: MailSlot[Callable[[], object] | None] = MailSlot()
        self._lock = threading.Lock()
        self._waiters = 0
        self._spent = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="hvd-gossip-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread and returns when the endpoint is connected; raises what connecting raised."""
        connected: Handle[None] = Handle(self, lambda: "connecting to the other ranks")
        self._commands.put(lambda: connected.finish(self._open()))
        self._thread.start()
        connected.wait(max(CONNECTING, self.limits.timeout))

    def post(self, command: Callable[[], object]) -> None:
        """Runs `command()` soon on the engine's thread. From any thread; at once if called there."""
        if threading.get_ident() == self._thread.ident:
            command()
        else:
            self._commands.put(command)

    def submit(self, start: Callable[[], Future[T] | Coroutine[Any, Any, T]], name: str = "call") -> Handle[T]:
        """Runs `start()` on the engine's thread: it returns a future or a coroutine, whose result the handle gives."""
        self.check()
        state: list[Future[T]] = []
        handle: Handle[T] = Handle(self, lambda: _progress_of(state, name))
        self._commands.put(lambda: self._begin(start, name, handle, state))
        return handle

    def call(self, start: Callable[[], Future[T] | Coroutine[Any, Any, T]], name: str = "call") -> T:
        """`submit(start).wait()`."""
        return self.submit(start, name).wait()

    def check(self) -> None:
        """Raises the engine's failure, if it has failed."""
        if self.failure is not None:
            raise self.failure

    @property
    def rank(self) -> int:
        """This worker's rank; -1 before it is connected."""
        return self.endpoint.rank if hasattr(self, "endpoint") else -1

    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the thread. What is still outstanding is dropped: departures come before.

        Raises:
            WaitTimeoutError: the thread did not end in time.
        """
        self._commands.put(self._stop)
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise WaitTimeoutError(f"the engine's thread did not stop within {timeout} s")

    def join(self) -> None:
        """Waits for the thread's end: for a process that is about to be ended by it."""
        self._thread.join()

    def wait_for(self, event: threading.Lock, what: Callable[[], str], timeout: float | None) -> None:
        """Another thread's wait for `event`'s release; the engine does not sleep long meanwhile."""
        start, on_wait = time.perf_counter(), self.on_wait
        awaited = what() if on_wait is not None else ""
        self.placement.note_caller()
        with self._lock:
            self._waiters += 1
        self._commands.put(None)
        try:
            self._watch(event, what, timeout)
        finally:
            with self._lock:
                self._waiters -= 1
                self.waited += time.perf_counter() - start
            if on_wait is not None:
                on_wait(awaited, start, time.perf_counter())
        event.release()

    def _watch(self, event: threading.Lock, what: Callable[[], str], timeout: float | None) -> None:
        if event.acquire(timeout=CHECK_EVERY if timeout is None else min(CHECK_EVERY, timeout)):
            return
        limits = self.limits if timeout is None else replace(self.limits, timeout=timeout)
        watch = StallWatch(self.rank, what, limits)
        while not event.acquire(timeout=min(CHECK_EVERY, watch.seconds_left())):
            self.check()
            if not self._thread.is_alive():
                raise EngineError(f"the engine has stopped while this was waited for: {what()}")
            watch.check()
        watch.done()

    def _open(self) -> Future[None]:
        opened: Future[None] = Future("connecting")
        try:
            self.endpoint = self._connect(self.scheduler)
        except Exception as error:  # reaches the caller of start()
            self._stopping = True
            opened.set_error(error)
        else:
            opened.set_result(None)
        return opened

    def _begin(
        self,
        start: Callable[[], Future[T] | Coroutine[Any, Any, T]],
        name: str,
        handle: Handle[T],
        state: list[Future[T]],
    ) -> None:
        try:
            begun = start()
        except Exception as error:  # reaches the caller through the handle
            future: Future[T] = Future(name)
            future.set_error(error)
        else:
            future = begun if isinstance(begun, Future) else self.scheduler.spawn(begun, name)
        state.append(future)
        future.add_callback(handle.finish)

    def _stop(self) -> None:
        self._stopping = True

    def _on_failure(self, error: BaseException, what: str) -> None:
        if self.failure is None:
            failure = EngineError(f"rank {self.rank}: {what} failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self.failure = failure
            log.error("%s", failure, exc_info=error)

    def _main(self) -> None:
        sharpen_timers()
        self._run_command(block=True, timeout=None)
        moved_at, sleep = time.monotonic(), FIRST_SLEEP
        while not self._stopping:
            if self._waiters:
                self.placement.join_caller()
            if self._turn():
                moved_at, sleep = time.monotonic(), FIRST_SLEEP
                continue
            still = time.monotonic() - moved_at
            if self._spins(still):
                _give_way()
                continue
            if not self._waiters:
                self.placement.leave()
            if self._run_command(block=True, timeout=self._clamp(sleep, still)):
                moved_at, sleep = time.monotonic(), FIRST_SLEEP
            sleep *= 2

    def _turn(self) -> bool:
        """One look at everything. True if anything moved."""
        moved = False
        while self._run_command(block=False, timeout=None):
            moved = True
        while self.scheduler.ready:
            moved |= self.scheduler.run_ready()
        return self.endpoint.progress() or moved

    def _spins(self, still: float) -> bool:
        """Whether to look again at once, so many seconds after the last thing that moved."""
        if self._waiters:
            return still < max(self._spin, URGENT_SPIN)
        return still < self._spin and not self.placement.crowded

    def _clamp(self, sleep: float, still: float) -> float:
        longest = self._backoff_max if still < IDLE_AFTER else self._idle_sleep()
        if self._waiters:
            longest = min(longest, max(URGENT_SLEEP, still * URGENT_SHARE))
        due = self.endpoint.next_timer()
        if due is not None:
            longest = min(longest, max(due - self.endpoint.now(), FIRST_SLEEP))
        return min(sleep, longest)

    def _idle_sleep(self) -> float:
        """By which the last look, at its own price, costs IDLE_SHARE of a core."""
        before, self._spent = self._spent, time.thread_time()
        by_share = min((self._spent - before) / IDLE_SHARE, IDLE_LONGEST)
        return max(by_share, self._backoff_max * IDLE_FACTOR)

    def _run_command(self, *, block: bool, timeout: float | None) -> bool:
        if not block and self._commands.empty():
            return False
        try:
            command = self._commands.get(timeout)
        except Empty:
            return False
        if command is not None:
            self._execute(command)
        return True

    def _execute(self, command: Callable[[], object]) -> None:
        try:
            command()
        except Exception as error:  # reaches the training thread at its next call
            self._on_failure(error, "a command")


def _progress_of(state: list[Future[Any]], name: str) -> str:
    if not state:
        return name
    future = state[0]
    return f"{name}: {future.waiting_for()}" if isinstance(future, Task) else f"{name}: {describe(future.what)}"
