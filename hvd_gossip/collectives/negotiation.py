"""One name under negotiation: who has submitted it, and what."""

from __future__ import annotations

from hvd_gossip.collectives.request import Signature
from hvd_gossip.collectives.wire import Submission


class Negotiation:
    """One name under negotiation.

    Attributes:
        signature: of the first rank that submitted it; `signatures` and `submissions` are by rank.
        alike: whether all signatures are equal.
        complete: whether all have submitted it, and it only waits for the rest of its group.
        absent: the ranks that had joined when it was complete, and had not submitted it.
        since: when it was first submitted, seconds; `reported` is when it was last reported as stalled, or `since`.
    """

    __slots__ = ("absent", "alike", "complete", "reported", "signature", "signatures", "since", "submissions")

    def __init__(self, signature: Signature, now: float) -> None:
        self.signature = signature
        self.signatures: dict[int, Signature] = {}
        self.submissions: dict[int, Submission] = {}
        self.alike = True
        self.complete = False
        self.absent: tuple[int, ...] = ()
        self.since = self.reported = now

    @property
    def live_only(self) -> bool:
        """Whether departed ranks may be missing."""
        return self.signature.live_only if self.alike else all(one.live_only for one in self.signatures.values())

    @property
    def groups_differ(self) -> bool:
        """Whether the ranks disagree even on the group, so that waiting for the rest of it makes no sense."""
        return len({(one.group, one.group_size) for one in self.signatures.values()}) > 1

    def add(self, rank: int, signature: Signature, submission: Submission) -> None:
        """A rank has submitted it."""
        self.signatures[rank] = signature
        self.submissions[rank] = submission
        self.alike = self.alike and (signature is self.signature or signature == self.signature)

    def withdraw(self, rank: int) -> None:
        """Forgets what a rank submitted."""
        self.complete = False
        if self.submissions.pop(rank, None) is not None:
            del self.signatures[rank]
            self.signature = next(iter(self.signatures.values()), self.signature)
            self.alike = all(signature == self.signature for signature in self.signatures.values())
