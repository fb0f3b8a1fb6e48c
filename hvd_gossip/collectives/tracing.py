"""What a timeline shows of collective operations, by the names that Horovod documents.

On the coordinator: NEGOTIATE_ALLREDUCE from the first rank's request to the last one's, with a tick, named after the rank,
for each. On other ranks: the same from this rank's request to the answer. Then ALLREDUCE, and within it QUEUE (until the
transfer is started), WAIT_FOR_DATA (until the device has computed it) and MPI_ALLREDUCE. There is no
MEMCPY_IN_FUSION_BUFFER: tensors that are fused are sent from where they lie.
"""

from __future__ import annotations

from collections.abc import Callable

from hvd_gossip.collectives.executor import Operation
from hvd_gossip.collectives.request import Signature

Trace = Callable[[str, str, float, "float | None"], None]
"""Called as `trace(tensor, activity, start, end)`, in seconds of the endpoint's clock, when an activity has ended, and before
that, without an end, when one has begun that may never end."""
CYCLE = "CYCLE_START"
_MPI = {"broadcast": "MPI_BCAST"}


class Tracer:
    """Tells `trace` what happens, at `now()`."""

    def __init__(self, trace: Trace, now: Callable[[], float]) -> None:
        self._trace, self._now = trace, now

    def began(self, signature: Signature, since: float) -> None:
        """The coordinator has the first rank's request."""
        self._trace(_row(signature), _negotiate(signature), since, None)

    def ready(self, signature: Signature, rank: int) -> None:
        """The coordinator has a rank's request."""
        now = self._now()
        self._trace(_row(signature), str(rank), now, now)

    def negotiated(self, signature: Signature, since: float) -> None:
        """The negotiation is over, however it ended."""
        self._trace(_row(signature), _negotiate(signature), since, self._now())

    def answered(self, signature: Signature, since: float) -> None:
        """The result came with the answer."""
        self._trace(_row(signature), signature.kind.upper(), since, self._now())

    def transferred(self, operation: Operation) -> None:
        """A transfer is over, however it ended."""
        now = self._now()
        for part in operation.parts:
            name, kind = _row(part.signature), part.signature.kind
            started = operation.started or now
            ready = max(started, operation.ready)
            self._trace(name, kind.upper(), operation.since, now)
            self._trace(name, "QUEUE", operation.since, started)
            if ready > started:
                self._trace(name, "WAIT_FOR_DATA", started, ready)
            self._trace(name, _MPI.get(kind) or f"MPI_{kind.upper()}", ready, now)

    def cycle(self) -> None:
        """The coordinator answers."""
        now = self._now()
        self._trace("", CYCLE, now, now)


def _row(signature: Signature) -> str:
    """Process sets may have operations of one name under way at once."""
    process_set = signature.process_set
    return f"{signature.name} (process set {process_set})" if process_set else signature.name


def _negotiate(signature: Signature) -> str:
    return f"NEGOTIATE_{signature.kind.upper()}"
