"""Coroutines without a clock: futures, tasks and the scheduler that the engine and the simulator share.

asyncio is not used because both drivers need what its loop does not give: the engine polls MPI requests and must decide
itself how long to back off, and the simulator has a virtual clock and steps a million tasks a minute
(docs/decisions/0001-own-coroutine-scheduler.md).

A scheduler and everything spawned on it belong to one thread: the engine's, or the simulator's caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Description = str | tuple[Any, ...]

_PENDING = object()


class Cancelled(Exception):
    """Raised inside a task that was cancelled, and by awaiting a cancelled future. Made of a description of what was awaited."""

    def __str__(self) -> str:
        return " ".join(map(describe, self.args))


def describe(what: Description) -> str:
    """Text of a description: a string, or the words of a tuple joined (formatted only when somebody asks)."""
    if isinstance(what, str):
        return what
    return " ".join(describe(word) if isinstance(word, tuple) else str(word) for word in what)


class Future(Generic[T]):
    """The result of something under way; await it, or add a callback.

    Attributes:
        what: a few words for stall reports: what is awaited, and from which peer.
        on_cancel: called once by `cancel()`, so that whoever would complete the future can forget it.
    """

    __slots__ = ("_callbacks", "_error", "_result", "on_cancel", "what")

    def __init__(self, what: Description = "", on_cancel: Callable[[], None] | None = None) -> None:
        self._result: object = _PENDING
        self._error: BaseException | None = None
        # Most futures have one callback, the task that awaits them: no list is made before the second.
        self._callbacks: Callable[[Future[T]], object] | list[Callable[[Future[T]], object]] | None = None
        self.what = what
        self.on_cancel = on_cancel

    def done(self) -> bool:
        return self._result is not _PENDING or self._error is not None

    def result(self) -> T:
        """The value, or raises what the future failed with.

        Raises:
            RuntimeError: the future is not done.
        """
        if self._error is not None:
            raise self._error
        if self._result is _PENDING:
            raise RuntimeError(f"not done: {describe(self.what)}")
        return self._result  # type: ignore[return-value]

    def error(self) -> BaseException | None:
        return self._error

    def set_result(self, value: T) -> None:
        """Completes the future; a second completion (after a cancel, say) is ignored."""
        if self._result is _PENDING and self._error is None:
            self._result = value
            callbacks = self._callbacks
            if type(callbacks) is Task:
                self._callbacks = None
                callbacks.ready.append(callbacks)
            elif callbacks is not None:
                self._notify()

    def set_error(self, error: BaseException) -> None:
        if self._result is _PENDING and self._error is None:
            self._error = error
            if self._callbacks is not None:
                self._notify()

    def cancel(self, error: BaseException | None = None) -> None:
        """Ends the future, if it is not done, with an error: Cancelled unless another is given."""
        if not self.done():
            if self.on_cancel is not None:
                self.on_cancel()
            self.set_error(error or Cancelled(self.what))

    def add_callback(self, callback: Callable[[Future[T]], object]) -> None:
        """Calls `callback(self)` on completion, at once if the future is done."""
        callbacks = self._callbacks
        if self._result is not _PENDING or self._error is not None:
            callback(self)
        elif callbacks is None:
            self._callbacks = callback
        elif type(callbacks) is list:
            callbacks.append(callback)
        else:
            self._callbacks = [callbacks, callback]  # type: ignore[list-item]

    def has_callbacks(self) -> bool:
        return self._callbacks is not None

    def _notify(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        if type(callbacks) is list:
            for callback in callbacks:
                callback(self)
        else:
            callbacks(self)  # type: ignore[operator,misc]

    def __await__(self) -> Generator[Future[T], None, T]:
        if self._result is _PENDING and self._error is None:
            yield self
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class Task(Future[T]):
    """A running coroutine. Its future completes with what the coroutine returns or raises.

    Attributes:
        awaiting: what it waits for, if anything. Called with that future, the task goes on.
        ready: its scheduler's tasks that can go on.
    """

    __slots__ = ("_coroutine", "_scheduler", "awaiting", "ready")

    def __init__(self, coroutine: Coroutine[Any, Any, T], scheduler: Scheduler, name: Description) -> None:
        Future.__init__(self, name)
        self._coroutine = coroutine
        self._scheduler = scheduler
        self.ready = scheduler.ready
        self.awaiting: Future[Any] | None = None

    def step(self) -> None:
        """Lets the coroutine go on to its next wait. For the scheduler, and for a driver that steps `ready` itself."""
        if self._result is not _PENDING or self._error is not None:
            return
        self.awaiting = None
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as stop:
            self.set_result(stop.value)
        except Exception as error:  # reaches whoever awaits the task, or the scheduler's on_failure
            self._fail(error)
        else:
            self.awaiting = awaited
            awaited.add_callback(self)

    def __call__(self, _: Future[Any]) -> None:
        self.ready.append(self)

    def _fail(self, error: BaseException) -> None:
        lost = not self.has_callbacks() and not isinstance(error, Cancelled)
        self.set_error(error)
        if lost:
            self._scheduler.on_failure(self, error)

    def cancel(self, error: BaseException | None = None) -> None:
        """Cancels what the task waits for and closes its coroutine (its `finally` blocks run now)."""
        if self.done():
            return
        awaiting, self.awaiting = self.awaiting, None
        self.set_error(error or Cancelled(self.what))
        if awaiting is not None:
            awaiting.cancel()
        self._coroutine.close()

    def waiting_for(self) -> str:
        """What the innermost awaited future is, for stall reports."""
        inner: Future[Any] = self
        while isinstance(inner, Task) and inner.awaiting is not None:
            inner = inner.awaiting
        return describe(inner.what)


def _raise_failure(task: Task[Any], error: BaseException) -> None:
    raise RuntimeError(f"task {describe(task.what)} failed and nobody awaited it") from error


class Scheduler:
    """Steps the tasks that can go on.

    Attributes:
        on_failure: called as `on_failure(task, error)` when a task fails that nobody awaits: never lost.
    """

    def __init__(self, on_failure: Callable[[Task[Any], BaseException], None] = _raise_failure) -> None:
        self.ready: deque[Task[Any]] = deque()
        self.on_failure = on_failure

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: Description = "task") -> Task[T]:
        task = Task(coroutine, self, name)
        self.ready.append(task)
        return task

    def run_ready(self) -> bool:
        """Steps every task that is ready now (not those that become ready meanwhile). True if any was."""
        count = len(self.ready)
        for _ in range(count):
            self.ready.popleft().step()
        return count > 0


def _nothing(_: Future[Any]) -> None: ...


async def all_of(awaitables: Iterable[Future[Any]]) -> list[Any]:
    """Results of all the futures, in order. On the first failure the others are cancelled."""
    futures = list(awaitables)
    for future in futures:
        if isinstance(future, Task):
            future.add_callback(_nothing)  # its failure is looked at, though perhaps not at once
    results = []
    try:
        for future in futures:  # an asynchronous comprehension would be one more coroutine to go through
            results.append(await future)
        return results
    except BaseException:
        for future in futures:
            future.cancel()
        raise


async def first_of(*futures: Future[Any]) -> Future[Any]:
    """Waits until one of the futures is done and returns it; the others go on."""
    for future in futures:
        if future.done():
            return future
    done: Future[Future[Any]] = Future(("any of", *[future.what for future in futures]))
    for future in futures:
        future.add_callback(done.set_result)
    return await done


class Signal:
    """A condition that tasks wait for: `set()` wakes all that wait now."""

    def __init__(self, what: Description = "signal") -> None:
        self._what = what
        self._waiting: list[Future[None]] = []

    def set(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                future.set_result(None)

    def wait(self) -> Future[None]:
        future: Future[None] = Future(self._what)
        self._waiting.append(future)
        return future

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits, from one `set()` to the next, until the condition holds."""
        while not condition():
            await self.wait()


class Mutex:
    """Lets one task at a time through: `async with mutex:`."""

    def __init__(self, what: Description = "mutex") -> None:
        self._locked = False
        self._freed = Signal(what)

    async def __aenter__(self) -> None:
        await self._freed.until(lambda: not self._locked)
        self._locked = True

    async def __aexit__(self, *_: object) -> None:
        self._locked = False
        self._freed.set()


async def completed(value: T) -> T:
    """A coroutine that is already done: for callers that expect an awaitable."""
    return value


AwaitableOf = Awaitable[T]
