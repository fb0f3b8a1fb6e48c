"""Waiting for operations under way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Waitable(Protocol[R_co]):
    """An operation under way."""

    def wait(self) -> R_co:
        """Its result."""
        ...


def wait_for_all(handles: Iterable[Waitable[R]]) -> list[R]:
    """The results of operations.

    Raises:
        HorovodInternalError: the first error, when no operation is under way any more and their tensors are free. After a
            time-out at once: the others wait for the same rank.
    """
    results, failure = [], None
    for handle in handles:
        try:
            results.append(handle.wait())
        except WaitTimeoutError:
            raise
        except HorovodInternalError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return results
