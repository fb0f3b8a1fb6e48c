"""The engine's thread over an endpoint that needs no MPI: commands, waits, failures, the end."""

import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest

from hvd_gossip.engine import Engine
from hvd_gossip.errors import EngineError, WaitTimeoutError
from hvd_gossip.observe.waits import WaitLimits
from hvd_gossip.placement import Placement
from hvd_gossip.tasks import Future, Scheduler
from hvd_gossip.transport.simulated import SimulatedWorld


class Lone:
    """A simulated rank by itself whose clock is the real one: an endpoint to run an engine on."""

    def __init__(self, scheduler: Scheduler) -> None:
        inner = SimulatedWorld(1).endpoints[0]
        self.rank, self.size, self.rng = inner.rank, inner.size, np.random.default_rng(0)
        self.threads: set[int] = set()
        self._scheduler = scheduler

    def now(self) -> float:
        return time.monotonic()

    def progress(self) -> bool:
        self.threads.add(threading.get_ident())
        return False

    def next_timer(self) -> float | None:
        return None

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str = "task") -> Any:
        return self._scheduler.spawn(coroutine, name)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(Lone, limits=WaitLimits(timeout=60.0))  # type: ignore[arg-type]
    made.start()
    yield made
    if made.alive():
        made.stop()


async def value(result: int) -> int:
    return result


@pytest.mark.skipif(sys.platform != "linux", reason="threads are placed on Linux only")
def test_it_runs_on_its_callers_core_while_one_waits_and_then_anywhere(engine: Engine) -> None:
    cores = os.sched_getaffinity(0)
    asked, answer = threading.Event(), Future[set[int]]("an answer")
    seen: list[set[int]] = []

    def ask() -> Future[set[int]]:
        asked.set()
        return answer

    caller = threading.Thread(target=lambda: seen.append(engine.call(ask)))
    caller.start()
    asked.wait()
    wait_until(engine, lambda: len(os.sched_getaffinity(0)) == 1)
    engine.post(lambda: answer.set_result(os.sched_getaffinity(0)))
    caller.join()
    assert len(seen[0]) == 1
    wait_until(engine, lambda: os.sched_getaffinity(0) == cores)


def wait_until(engine: Engine, condition: Callable[[], bool]) -> None:
    """Returns when a condition holds on the engine's thread."""
    holds = threading.Event()
    while not holds.wait(0.01):
        engine.post(lambda: holds.set() if condition() else None)


def test_listening_costs_the_same_share_of_a_core_however_long_a_look_takes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.stop()
    spent = iter([1.0, 1.0 + 60e-6, 1.0 + 60e-6 + 90e-6, 2.0])
    monkeypatch.setattr(time, "thread_time", lambda: next(spent))
    engine._idle_sleep()
    assert [engine._idle_sleep() for _ in range(3)] == pytest.approx([6e-3, 9e-3, 20e-3])


def test_where_ranks_share_cores_it_spins_only_for_a_caller(engine: Engine) -> None:
    engine.stop()
    assert engine._spins(0.0)
    assert not engine._spins(1.0)
    engine.placement = Placement(0, 1 + (os.cpu_count() or 1))
    assert not engine._spins(0.0)
    engine._waiters = 1
    assert engine._spins(0.0)
    assert not engine._spins(1.0)


def test_a_coroutine_runs_on_the_engines_thread(engine: Engine) -> None:
    async def where() -> int:
        return threading.get_ident()

    assert engine.call(where) != threading.get_ident()
    assert engine.call(where) == next(iter(engine.endpoint.threads))  # type: ignore[attr-defined]


def test_submit_gives_a_handle_and_waits_are_counted(engine: Engine) -> None:
    gate: Future[int] = Future("the gate")
    handle = engine.submit(lambda: gate)
    assert not handle.done()

    def open_gate() -> None:
        while not engine._waiters:
            time.sleep(0.001)
        engine.post(lambda: gate.set_result(7))

    threading.Thread(target=open_gate).start()
    assert handle.wait() == 7
    assert handle.done()
    assert handle.wait() == 7
    assert engine.waited > 0


def test_what_a_coroutine_raises_reaches_the_waiter_and_the_engine_goes_on(engine: Engine) -> None:
    async def fail() -> None:
        raise KeyError("tensor")

    with pytest.raises(KeyError, match="tensor"):
        engine.call(fail)
    assert engine.call(lambda: value(1)) == 1


def test_a_bounded_wait_names_what_it_waits_for(engine: Engine) -> None:
    async def receive() -> None:
        await Future(("receiving from rank", 3))

    handle = engine.submit(receive, "exchange")
    engine.call(lambda: value(0))  # comes after it
    with pytest.raises(WaitTimeoutError, match="receiving from rank 3"):
        handle.wait(timeout=0.05)


def test_the_engines_own_limit_bounds_a_wait() -> None:
    engine = Engine(Lone, limits=WaitLimits(timeout=0.3))  # type: ignore[arg-type]
    engine.start()  # which has a limit of its own
    with pytest.raises(WaitTimeoutError, match="rank 0 gave up"):
        engine.call(lambda: Future("nothing"))
    engine.stop()


def test_connecting_may_last_longer_than_a_wait() -> None:
    """Ranks start far apart, and MPI_Init returns when the last has come."""

    def connect(scheduler: Scheduler) -> Lone:
        time.sleep(0.3)
        return Lone(scheduler)

    engine = Engine(connect, limits=WaitLimits(timeout=0.01))  # type: ignore[arg-type]
    engine.start()
    assert engine.rank == 0
    engine.stop()


def test_a_background_failure_is_raised_at_the_next_call(engine: Engine) -> None:
    async def fail() -> None:
        raise OSError("lost peer 3")

    async def spawn() -> None:
        engine.scheduler.spawn(fail(), "responder")

    engine.call(spawn)
    deadline = time.monotonic() + 60
    while engine.failure is None and time.monotonic() < deadline:
        time.sleep(0.001)
    with pytest.raises(EngineError, match="rank 0: responder failed: OSError: lost peer 3") as info:
        engine.call(lambda: value(1))
    assert isinstance(info.value.__cause__, OSError)


def test_a_background_failure_ends_a_wait_that_is_under_way(engine: Engine) -> None:
    async def fail() -> None:
        raise OSError("gone")

    handle = engine.submit(lambda: Future("an answer"))
    engine.post(lambda: engine.scheduler.spawn(fail(), "background"))
    with pytest.raises(EngineError, match="gone"):
        handle.wait()


def test_a_command_that_raises_is_a_failure_too(engine: Engine) -> None:
    engine.post(lambda: 1 / 0)
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        engine.submit(lambda: Future("an answer")).wait()


def test_connecting_can_fail() -> None:
    def refuse(scheduler: Scheduler) -> Lone:
        raise OSError("no network")

    engine = Engine(refuse)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="no network"):
        engine.start()
    engine.join()
    assert not engine.alive()


def test_after_the_end_nothing_hangs(engine: Engine) -> None:
    handle = engine.submit(lambda: Future("an answer"))
    engine.stop()
    with pytest.raises(EngineError, match="has stopped"):
        handle.wait()
