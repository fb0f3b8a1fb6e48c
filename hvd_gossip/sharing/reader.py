"""The training thread's end of a shared pool."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Protocol, TypeVar

from hvd_gossip.sharing.intervals import Interval
from hvd_gossip.sharing.messages import PoolKey, PoolSpec
from hvd_gossip.sharing.service import WorkSharing

T = TypeVar("T", covariant=True)
S = TypeVar("S")


class Waitable(Protocol[T]):
    """What `Submit` gives: `engine.Handle` is one."""

    def wait(self) -> T: ...


class Submit(Protocol):
    """Runs a coroutine on the engine; `engine.Engine.submit` is one."""

    def __call__(self, start: Callable[[], Coroutine[Any, Any, S]], name: str) -> Waitable[S]: ...


class PoolReader:
    """Takes a pool's units, one training thread at a time. Touches the engine only when this rank has none left.

    A context manager: on leaving it, however, the rest of this rank's share is the other ranks'.

    Args:
        sharing: the process's service.
        submit: runs a coroutine on the engine.
        key, spec: which pool; equal on all ranks.

    Raises:
        HorovodInternalError: see `WorkSharing.open`.
    """

    def __init__(self, sharing: WorkSharing, submit: Submit, key: PoolKey, spec: PoolSpec) -> None:
        self._sharing = sharing
        self._submit = submit
        self._pool = submit(lambda: sharing.open(key, spec), f"opening the shared pool {key}").wait()

    def take(self, count: int = 1) -> Interval | None:
        """Up to `count` units in one piece, at least one; None when nobody has any left.

        Raises:
            WaitTimeoutError, HorovodInternalError: see `WorkSharing.take`.
        """
        interval = self._pool.take(count)
        if interval is not None or self._pool.exhausted:
            return interval
        what = f"units of the shared pool {self._pool.key}"
        return self._submit(lambda: self._sharing.take(self._pool, count), what).wait()

    def __iter__(self) -> Iterator[int]:
        """The units one by one, until nobody has any left."""
        while (interval := self.take()) is not None:
            yield from range(*interval)

    def __enter__(self) -> PoolReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.leave()
