"""How a rank whose engine has failed leaves: its thread still runs, and what still works says goodbye.

Otherwise the others would find out by waiting for it, each as long as `wait_timeout`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from hvd_gossip.engine import Engine
from hvd_gossip.tasks import first_of
from hvd_gossip.transport.endpoint import Endpoint

_log = logging.getLogger("hvd_gossip")
Departure = Callable[[], Coroutine[Any, Any, None]]


def leave_after_failure(engine: Engine, departures: Sequence[Departure], timeout: float) -> None:
    """Starts the departures on the engine's thread, one after the other, and waits for them.

    Args:
        engine: one that has failed and whose thread is alive.
        departures: what to do; one that fails, or takes too long, is given up.
        timeout: seconds for all of them together.
    """
    left = threading.Event()

    def begin() -> None:
        share = timeout / max(1, len(departures))
        task = engine.scheduler.spawn(_leave(engine.endpoint, departures, share), "departing after a failure")
        task.add_callback(lambda _: left.set())

    engine.post(begin)
    if not left.wait(timeout + 1.0):
        _log.warning("rank %d: the failed engine did not depart within %g s", engine.rank, timeout)


async def _leave(endpoint: Endpoint, departures: Sequence[Departure], timeout: float) -> None:
    for depart in departures:
        limit, task = endpoint.sleep(timeout), endpoint.spawn(depart(), "a departure after a failure")
        await first_of(task, limit)
        limit.cancel()
        task.cancel()
