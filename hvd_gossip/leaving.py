"""How a rank leaves: what it takes part in says goodbye, so that nobody waits for it; also when its engine has failed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from hvd_gossip.algorithms.base import Algorithm
from hvd_gossip.engine import Engine, Handle
from hvd_gossip.errors import WaitTimeoutError
from hvd_gossip.tasks import first_of
from hvd_gossip.transport.endpoint import Endpoint

_log = logging.getLogger("hvd_gossip")
Departure = Callable[[], Coroutine[Any, Any, None]]


class Departures:
    """The departures of one process. Owner: the training thread.

    Args:
        engine: runs them.
        timeout: seconds that one is waited for when all are to be done.
    """

    def __init__(self, engine: Engine, timeout: float) -> None:
        self._engine = engine
        self._timeout = timeout
        self._begun: list[Handle[None]] = []
        self._algorithms: list[Algorithm] = []

    def begin(self, algorithm: Algorithm) -> Handle[None]:
        """Announces that an algorithm's worker takes no further step; the handle is done when no peer counts on it."""
        handle = self._engine.submit(algorithm.depart, f"departing from {algorithm.name}")
        self._begun.append(handle)
        self._algorithms.append(algorithm)
        return handle

    def finish(self, services: Mapping[str, Departure]) -> None:
        """Waits until all that have begun are done, departs from the services, one after the other, and answers what peers may
        still ask of the algorithms. Who does not answer in time is named in a warning."""
        for handle in self._begun:
            self._await(handle)
        for name, depart in services.items():
            self._await(self._engine.submit(depart, f"departing from {name}"))
        for algorithm in self._algorithms:
            self._await(self._engine.submit(algorithm.linger, f"what others need of {algorithm.name}"))

    def _await(self, handle: Handle[None]) -> None:
        try:
            handle.wait(self._timeout)
        except WaitTimeoutError as error:
            _log.warning("shutdown goes on without an answer: %s", error)


def leave_after_failure(engine: Engine, departures: Sequence[Departure], timeout: float) -> None:
    """Starts the departures on the engine's thread, which still runs, one after the other, and waits for them.

    Otherwise the others would find out by waiting for this rank, each as long as `wait_timeout`.

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
