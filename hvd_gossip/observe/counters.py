"""What an algorithm counts. The metrics writer and the run report read it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Counters:
    """Totals since init. Owner: the engine's thread writes, others only read (single words: no lock needed); a sample is
    taken away by the training thread.

    Attributes:
        exchanges: exchanges with a peer that were completed.
        bytes_sent, bytes_received: payload bytes, without headers.
        poisoned: chunks refused because they held a value that is not finite.
        refused: the same, by the rank whose chunk it was.
        staleness: local steps that passed during the last exchange, by peer; under asgd, at a server by worker: versions of its
            shard between the one that the last update was made at and the one that it was applied to.
        consensus_sample: the newest estimate of this worker's distance to the mean, until it is taken.
        last_peer: the peer of the last completed exchange, or -1.
    """

    exchanges: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    poisoned: int = 0
    last_peer: int = -1
    consensus_sample: float | None = None
    staleness: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)

    def take_sample(self) -> float | None:
        """The newest consensus sample, once."""
        sample, self.consensus_sample = self.consensus_sample, None
        return sample

    def refuse(self, peer: int) -> None:
        """Counts a chunk of `peer`'s (or of this rank's own, for its receivers) that was not averaged in."""
        self.poisoned += 1
        self.refused[peer] = self.refused.get(peer, 0) + 1
