"""Where, how punctually, and before whom the engine's thread runs. Linux only; elsewhere nothing is done.

While a caller waits its core is free, and that is where the engine belongs. Left alone, the kernel lets the engines of two
ranks share one core for milliseconds although another is idle: threads that ran just now count as cache-hot and stay where
they are (docs/decisions/0010-the-engine-runs-on-its-callers-core.md). With more ranks than cores it interrupts nobody who
computes, while nobody waits (docs/decisions/0014-the-engine-interrupts-nobody.md).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

TIMER_SLACK_NS = 1000
"""How late the kernel may end a sleep of the engine. By default 50 us: longer than most of them."""
PR_SET_TIMERSLACK = 29
_LINUX = sys.platform == "linux"


def sharpen_timers() -> None:
    """Makes the calling thread's short sleeps as short as they say."""
    if _LINUX:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0)


class Placement:
    """Keeps the engine's thread on its caller's core while a caller waits; on this rank's share of the cores if the host has
    more ranks than the process may use cores, since callers then crowd at random. Where the host has more ranks than cores, the
    thread does not take the core from one that runs, such as another rank's training, while nobody waits.

    Callers call `note_caller`, the engine's thread the rest. `_caller_core` is a single word that callers write.

    Args:
        local_rank, local_size: this process among those of its host.

    Attributes:
        crowded: the host has more ranks than cores, so that whoever spins takes a core from another rank's training.
    """

    def __init__(self, local_rank: int = 0, local_size: int = 1) -> None:
        self._local_rank = local_rank
        self._local_size = local_size
        self._current_core = _find_current_core()
        self._caller_core = -1
        self._core = -1
        self.crowded = local_size > (os.cpu_count() or 1)
        self._yields = _LINUX and self.crowded
        self._yielding = False

    def note_caller(self) -> None:
        """A caller begins to wait, on the calling thread."""
        if self._current_core is not None:
            self._caller_core = self._current_core()

    def join_caller(self) -> None:
        """Moves the calling thread, the engine's, to where it belongs while a caller waits."""
        if self._yielding:
            self._yielding = False
            _change_policy(os.SCHED_BATCH, os.SCHED_OTHER)
        core = self._caller_core
        if core >= 0 and core != self._core:
            self._core = core
            allowed = sorted(_allowed())
            if self._local_size > len(allowed):
                self._current_core = None  # from now on there is one place for all callers
                self._core = self._caller_core = core = allowed[self._local_rank % len(allowed)]
            if core in allowed:
                os.sched_setaffinity(0, {core})

    def leave(self) -> None:
        """Nobody waits: the calling thread may run wherever the process may, and on a crowded host interrupts nobody."""
        if self._yields and not self._yielding:
            self._yields = self._yielding = _change_policy(os.SCHED_OTHER, os.SCHED_BATCH)
        if self._core >= 0:
            self._core = -1
            os.sched_setaffinity(0, _allowed())


def _allowed() -> set[int]:
    """The cores of the process's first thread: the engine does not change those."""
    return os.sched_getaffinity(os.getpid())


def _change_policy(before: int, after: int) -> bool:
    """Gives the calling thread another scheduling policy. False if it had another than `before`, or a sandbox forbids it."""
    try:
        if os.sched_getscheduler(0) != before:
            return False
        os.sched_setscheduler(0, after, os.sched_param(0))
    except OSError:
        return False
    return True


def _find_current_core() -> Callable[[], int] | None:
    """The C library's sched_getcpu, where there is one. PyDLL: the call is shorter than giving the interpreter's lock away."""
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None) if _LINUX else None
