"""How a process ends: in order at interpreter exit, at once for all ranks after an uncaught exception.

A worker that finishes departs: it says so to its peers, answers what they still ask, and leaves. A worker whose script raised
cannot do that job any more, and MPI cannot end a job of which one process is missing: it aborts the job, after its traceback.
Under hvd-gossip-run it just exits: the launcher ends the others, and says which rank it was (some MPIs abort too fast for that).
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from types import TracebackType

from hvd_gossip.launch.agent.options import AGENT_PID

_installed = False
_raised: list[BaseException] = []


def install(leave: Callable[[], None], abort: Callable[[int], None]) -> None:
    """Once a process: `leave()` at a normal exit, `abort(code)` at the exit after an uncaught exception."""
    global _installed
    if _installed:
        return
    _installed = True
    previous = sys.excepthook

    def note(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        previous(kind, error, trace)
        _raised.append(error)

    def at_exit() -> None:
        if not _raised:
            leave()
            return
        sys.stdout.flush()
        sys.stderr.flush()
        code = 130 if isinstance(_raised[0], KeyboardInterrupt) else 1
        if os.environ.get(AGENT_PID) == str(os.getppid()):
            os._exit(code)
        abort(code)

    sys.excepthook = note
    atexit.register(at_exit)


def note_failure(error: BaseException) -> None:
    """For runners that catch the script's exception themselves: the process will end as after an uncaught one."""
    _raised.append(error)
