"""How fast a worker steps, and how fast its partners do."""

from __future__ import annotations

from bisect import bisect_left, insort

from hvd_gossip.tasks import Future
from hvd_gossip.transport.endpoint import Endpoint

SMOOTHING = 0.25
"""Weight of the newest step in the running mean of step times."""
SLACK = 1.5
"""A worker counts as slower than its partners when its step takes so many times theirs."""
KEPT = 64
"""Partners whose paces are known at a time: enough for a median, and little to keep with a thousand."""


class Pace:
    """Running step times, seconds. Owner: the engine's thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._last = endpoint.now()
        self._partners: dict[int, float] = {}
        self._sorted: list[float] = []
        self.seconds = 0.0

    def stepped(self) -> None:
        """This worker has made a step."""
        now = self._endpoint.now()
        taken = now - self._last
        self.seconds = taken if self.seconds == 0.0 else (1 - SMOOTHING) * self.seconds + SMOOTHING * taken
        self._last = now

    def partner(self, peer: int, seconds: float) -> None:
        """A partner says how long its steps take; 0 if it has made none. The KEPT that have said so last count."""
        if seconds > 0.0:
            partners, known = self._partners, self._sorted
            former = partners.pop(peer, None)
            if former is None and len(partners) >= KEPT:
                former = partners.pop(next(iter(partners)))
            if former is not None:
                del known[bisect_left(known, former)]
            partners[peer] = seconds
            insort(known, seconds)

    def typical(self) -> float:
        """Seconds of the median step among this worker's and its partners'; 0 while none is known."""
        known = self._sorted
        if self.seconds > 0.0:
            known = known.copy()
            insort(known, self.seconds)
        return known[len(known) // 2] if known else 0.0

    def timer(self, steps: int) -> Future[None]:
        """Done when the typical partner will have made so many steps and some slack; never while none is known."""
        if not self._sorted:
            return Future("this worker's next step")
        return self._endpoint.sleep(SLACK * steps * self._sorted[len(self._sorted) // 2])
