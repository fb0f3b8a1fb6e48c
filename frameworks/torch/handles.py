"""Handles of asynchronous operations, `poll` and `synchronize`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from hvd_gossip.handles import wait_for_all

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


class CallableHandle(Handle[R]):
    """A handle that may also be called for its output, as Horovod's scripts do with `sparse_allreduce_async`."""

    __slots__ = ()

    def __call__(self) -> R:
        return self.wait()


class _Several:
    """Several operations as one; parts that are one operation are waited for once."""

    def __init__(self, parts: Sequence[Pending]) -> None:
        self._parts = parts
        self._operations = list(dict.fromkeys(parts))

    def done(self) -> bool:
        return all(operation.done() for operation in self._operations)

    def wait(self) -> list[Any]:
        results = dict(zip(self._operations, wait_for_all(self._operations), strict=True))
        return [results[part] for part in self._parts]


def together(handles: Sequence[Pending]) -> Handle[list[Any]]:
    """One handle for all of a group's; its output is the list of theirs."""
    return Handle(_Several(handles), lambda outputs: outputs)


def poll(handle: Handle[Any]) -> bool:
    """Whether the operation has completed, so that `synchronize` returns without blocking (Horovod's function)."""
    return _checked(handle).done()


def synchronize(handle: Handle[R]) -> R:
    """Waits for an asynchronous operation and returns its output (Horovod's function).

    Args:
        handle: what an `..._async` function returned. A second call returns the same output.

    Returns:
        A tensor; a list of them for a grouped operation; for `alltoall_async` a tensor and the received splits.

    Raises:
        HorovodInternalError: the operation failed.
    """
    return _checked(handle).wait()


def _checked(handle: Handle[R]) -> Handle[R]:
    if not isinstance(handle, Handle):
        raise TypeError(f"expected a handle from an ..._async function, not {type(handle).__name__}")
    return handle
