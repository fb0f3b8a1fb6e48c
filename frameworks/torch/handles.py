"""Handles of asynchronous operations, `poll` and `synchronize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

R = TypeVar("R")


class Pending(Protocol):
    """What the runtime gives for a submitted request."""

    def done(self) -> bool: ...

    def wait(self) -> Any: ...


class Handle(Generic[R]):
    """An operation under way; give it to `poll` and `synchronize`.

    Args:
        pending: the runtime's handle.
        finish: makes the operation's output of the runtime's result; called once, in the thread that synchronizes.
    """

    __slots__ = ("_finish", "_pending", "_value")

    def __init__(self, pending: Pending, finish: Callable[[Any], R]) -> None:
        self._pending: Pending | None = pending
        self._finish = finish
        self._value: R

    def done(self) -> bool:
        """Whether `wait` returns, or raises, at once."""
        return self._pending is None or self._pending.done()

    def wait(self) -> R:
        """The operation's output. May be called again."""
        if self._pending is not None:
            self._value = self._finish(self._pending.wait())
            self._pending = None
        return self._value


def poll(handle: Handle[Any]) -> bool:
    """Whether the operation has completed, so that `synchronize` returns without blocking (Horovod's function)."""
    return _checked(handle).done()


def synchronize(handle: Handle[R]) -> R:
    """Waits for an asynchronous operation and returns its output (Horovod's function).

    Args:
        handle: what an `..._async` function returned. A second call returns the same output.

    Raises:
        HorovodInternalError: the operation failed.
    """
    return _checked(handle).wait()


def _checked(handle: Handle[R]) -> Handle[R]:
    if not isinstance(handle, Handle):
        raise TypeError(f"expected a handle from an ..._async function, not {type(handle).__name__}")
    return handle
