"""The scheduler: futures, tasks, and what happens to failures."""

import pytest

from hvd_gossip.tasks import Cancelled, Future, Mutex, Scheduler, Signal, Task, all_of, first_of


def drain(scheduler: Scheduler) -> None:
    while scheduler.run_ready():
        pass


def test_a_task_returns_what_its_coroutine_returns() -> None:
    scheduler, inner = Scheduler(), Future[int]("a number")

    async def double() -> int:
        return 2 * await inner

    task = scheduler.spawn(double())
    drain(scheduler)
    assert not task.done()
    inner.set_result(21)
    drain(scheduler)
    assert task.result() == 42


def test_a_failure_reaches_whoever_awaits_and_nobody_else() -> None:
    lost: list[BaseException] = []
    scheduler, seen = Scheduler(lambda task, error: lost.append(error)), []
    gate: Future[None] = Future("gate")

    async def fail() -> None:
        await gate
        raise KeyError("x")

    async def watch(task: Task[None]) -> None:
        try:
            await task
        except KeyError as error:
            seen.append(error.args[0])

    scheduler.spawn(watch(scheduler.spawn(fail())))
    drain(scheduler)
    gate.set_result(None)
    drain(scheduler)
    assert (seen, lost) == (["x"], [])


def test_a_failure_that_nobody_awaits_is_reported_with_the_task() -> None:
    lost: list[tuple[str, str]] = []
    scheduler = Scheduler(lambda task, error: lost.append((str(task.what), str(error))))

    async def fail() -> None:
        raise ValueError("lost?")

    scheduler.spawn(fail(), "the failing task")
    drain(scheduler)
    assert lost == [("the failing task", "lost?")]


def test_by_default_an_unawaited_failure_raises() -> None:
    scheduler = Scheduler()

    async def fail() -> None:
        raise ValueError("cause")

    scheduler.spawn(fail(), ("task", 7))
    with pytest.raises(RuntimeError, match="task 7 failed") as info:
        drain(scheduler)
    assert isinstance(info.value.__cause__, ValueError)


def test_cancel_runs_finally_and_cancels_what_is_awaited() -> None:
    scheduler, log = Scheduler(), []
    awaited: Future[None] = Future("never", on_cancel=lambda: log.append("awaited cancelled"))

    async def wait() -> None:
        try:
            await awaited
        finally:
            log.append("finally")

    task = scheduler.spawn(wait())
    drain(scheduler)
    task.cancel()
    assert log == ["awaited cancelled", "finally"]
    with pytest.raises(Cancelled):
        task.result()
    drain(scheduler)


def test_results_come_in_order_and_the_first_failure_cancels_the_rest() -> None:
    scheduler = Scheduler()
    a, b, c = Future[int]("a"), Future[int]("b"), Future[int]("c")
    good = scheduler.spawn(all_of([a, b]))
    bad = scheduler.spawn(all_of([b, c]))
    bad.add_callback(lambda _: None)
    drain(scheduler)
    b.set_error(OSError("b failed"))
    a.set_result(1)
    good.add_callback(lambda _: None)
    drain(scheduler)
    assert isinstance(good.error(), OSError)
    assert isinstance(bad.error(), OSError)
    assert isinstance(c.error(), Cancelled)


def test_first_of_returns_the_one_that_is_done() -> None:
    scheduler = Scheduler()
    slow, quick = Future[int]("slow"), Future[int]("quick")
    first = scheduler.spawn(first_of(slow, quick))
    drain(scheduler)
    quick.set_result(1)
    drain(scheduler)
    assert first.result() is quick
    slow.set_result(2)
    drain(scheduler)
    assert first.result() is quick


def test_a_signal_wakes_all_that_wait_now() -> None:
    scheduler, signal, woken = Scheduler(), Signal(), []

    async def wait(name: str) -> None:
        await signal.wait()
        woken.append(name)

    scheduler.spawn(wait("a"))
    scheduler.spawn(wait("b"))
    drain(scheduler)
    signal.set()
    scheduler.spawn(wait("late"))
    drain(scheduler)
    assert woken == ["a", "b"]


def test_until_waits_for_its_condition() -> None:
    scheduler, signal, count = Scheduler(), Signal(), [0]
    task = scheduler.spawn(signal.until(lambda: count[0] == 2))
    for _ in range(2):
        drain(scheduler)
        assert not task.done()
        count[0] += 1
        signal.set()
    drain(scheduler)
    assert task.done()


def test_a_mutex_lets_one_through_at_a_time() -> None:
    scheduler, mutex, inside, most = Scheduler(), Mutex(), [0], [0]
    gate = Signal()

    async def enter() -> None:
        async with mutex:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            await gate.wait()
            inside[0] -= 1

    tasks = [scheduler.spawn(enter()) for _ in range(4)]
    while not all(task.done() for task in tasks):
        drain(scheduler)
        gate.set()
    assert most == [1]


def test_waiting_for_names_the_innermost_future() -> None:
    scheduler = Scheduler()
    inner: Future[None] = Future(("receiving from rank", 3))

    async def receive() -> None:
        await inner

    async def outer() -> None:
        await scheduler.spawn(receive(), "receive")

    task = scheduler.spawn(outer(), "outer")
    drain(scheduler)
    assert task.waiting_for() == "receiving from rank 3"


def test_a_second_result_is_ignored_and_an_early_one_raises() -> None:
    future: Future[int] = Future("f")
    with pytest.raises(RuntimeError, match="not done: f"):
        future.result()
    future.set_result(1)
    future.set_result(2)
    future.set_error(OSError())
    assert future.result() == 1
