"""Waits that report whom they wait for and that always end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from hvd_gossip.errors import WaitTimeoutError

_log = logging.getLogger("hvd_gossip")


@dataclass(frozen=True)
class WaitLimits:
    """How long a wait may last, and when it says so.

    Attributes:
        check_time: seconds after which a wait is reported; 0 never.
        timeout: seconds after which it fails.
    """

    check_time: float = 60.0
    timeout: float = 1800.0


class StallWatch:
    """Watches one wait: warns when it has lasted `limits.check_time`, twice that, four times that and so on.

    Args:
        rank: who waits; -1 before it has a rank.
        waiting_for: what is awaited and from which peer, such as `Task.waiting_for`; called only for a message.
        limits: when to warn and when to give up.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        rank: int,
        waiting_for: Callable[[], str],
        limits: WaitLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._who = f"rank {rank}" if rank >= 0 else "a process that has no rank yet"
        self._waiting_for = waiting_for
        self._limits = limits
        self._clock = clock
        self._start = clock()
        self._next_warning = limits.check_time or float("inf")
        self._warned = ""

    def seconds_left(self) -> float:
        """Seconds until `check` has something to do: how long the caller may block. Never negative."""
        return max(0.0, min(self._next_warning, self._limits.timeout) - self._elapsed())

    def check(self) -> None:
        """Warns if a warning is due.

        Raises:
            WaitTimeoutError: the wait has lasted `limits.timeout` seconds.
        """
        elapsed = self._elapsed()
        if elapsed >= self._limits.timeout:
            raise WaitTimeoutError(self._timeout_message())
        if elapsed >= self._next_warning:
            self._warn(elapsed)

    def done(self) -> None:
        """The wait is over; if it was reported, so is its end."""
        if self._warned:
            _log.warning("%s goes on after %.0f s of waiting for: %s", self._who, self._elapsed(), self._warned)

    def _elapsed(self) -> float:
        return self._clock() - self._start

    def _warn(self, elapsed: float) -> None:
        self._warned = self._waiting_for()
        while self._next_warning <= elapsed:
            self._next_warning *= 2
        _log.warning(
            "%s has waited %.0f s for: %s (it gives up after %.0f s; is that peer slow, stuck or gone?)",
            self._who, elapsed, self._warned, self._limits.timeout,
        )  # fmt: skip

    def _timeout_message(self) -> str:
        return (
            f"{self._who} gave up after {self._limits.timeout:g} s of waiting for: {self._waiting_for()}. "
            "See that peer's output; set a longer wait_timeout if it is only slow."
        )


def bounded_wait(
    wait: Callable[[float], bool],
    rank: int,
    waiting_for: Callable[[], str],
    limits: WaitLimits,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Blocks until `wait` succeeds, with warnings on the way.

    Args:
        wait: blocks at most the seconds given and says whether what is awaited is there: `threading.Event.wait`.
        rank, waiting_for, limits, clock: see `StallWatch`.

    Raises:
        WaitTimeoutError: `limits.timeout` seconds have passed.
    """
    watch = StallWatch(rank, waiting_for, limits, clock)
    while not wait(watch.seconds_left()):
        watch.check()
    watch.done()
