"""The stall check: names that only some ranks have submitted, reported and, if so set, given up (Horovod's inspector)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hvd_gossip.collectives.coordinator import Coordinator
from hvd_gossip.collectives.messages import describe_stall, name_ranks
from hvd_gossip.collectives.negotiation import Negotiation


@dataclass(frozen=True)
class StallCheck:
    """When a name that waits for ranks is reported and given up.

    Attributes:
        check_time: seconds after which, and then every so often, it is reported; 0 never.
        shutdown_time: seconds after which it fails with WaitTimeoutError on every rank; 0 never.
        on_stall: takes the report.
    """

    check_time: float
    shutdown_time: float
    on_stall: Callable[[str], None]

    def next_due(self, coordinator: Coordinator) -> float | None:
        """When `check` next has something to do, or None if no name waits."""
        times = []
        for negotiation in coordinator.negotiations:
            if self.check_time > 0:
                times.append(negotiation.reported + self.check_time)
            if self.shutdown_time > 0:
                times.append(negotiation.since + self.shutdown_time)
        return min(times, default=None)

    def check(self, coordinator: Coordinator, now: float) -> None:
        """Reports what is due to be reported and gives up what is due to be given up."""
        negotiations = coordinator.negotiations
        if self.check_time > 0:
            self._report(coordinator, [one for one in negotiations if now >= one.reported + self.check_time], now)
        if self.shutdown_time > 0:
            for negotiation in negotiations:
                if now >= negotiation.since + self.shutdown_time:
                    coordinator.give_up(negotiation, self._farewell(coordinator, negotiation))

    def _report(self, coordinator: Coordinator, stalled: list[Negotiation], now: float) -> None:
        rows = []
        for negotiation in stalled:
            negotiation.reported = now
            ready, missing = sorted(negotiation.submissions), coordinator.missing(negotiation)
            rows.append((negotiation.signature, now - negotiation.since, ready, missing))
        if rows:
            self.on_stall(describe_stall(rows, self.check_time))

    def _farewell(self, coordinator: Coordinator, negotiation: Negotiation) -> str:
        signature, missing = negotiation.signature, coordinator.missing(negotiation)
        lack = f"{name_ranks(missing)} did not submit it" if missing else f"group {signature.group!r} is not complete"
        return (
            f"{signature.kind} {signature.name!r} was given up after {self.shutdown_time:g} s: {lack}, "
            f"{name_ranks(negotiation.submissions)} did (HOROVOD_STALL_SHUTDOWN_TIME_SECONDS)"
        )
