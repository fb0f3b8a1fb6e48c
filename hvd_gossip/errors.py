"""Every exception that hvd-gossip raises on purpose.

The two names that Horovod documents keep its names and meaning: `HorovodInternalError` (a collective failed; an elastic
loop may restore and go on) and `ValueError` for a call before `init()`.
"""


class HvdGossipError(Exception):
    """Base class of the package's own errors."""


class ConfigError(HvdGossipError, ValueError):
    """A setting is unknown or has a value that it cannot take; the message lists the valid ones."""


class TopologyError(HvdGossipError, ValueError):
    """A graph or mixing matrix does not meet a condition that the chosen algorithm needs."""


class HorovodInternalError(HvdGossipError, RuntimeError):
    """A collective operation failed (Horovod's name). The next operation may still be tried."""


class HostsUpdatedInterrupt(HvdGossipError, RuntimeError):
    """Hosts were added to the job or removed from it (Horovod's name): an elastic loop resets, and keeps its state.

    Attributes:
        skip_sync: hosts were only removed, so that all workers that are left have the same state.
    """

    def __init__(self, skip_sync: bool = False) -> None:
        super().__init__("the set of hosts has changed")
        self.skip_sync = skip_sync


class LaunchError(HvdGossipError, RuntimeError):
    """The ranks cannot be started, or were started in a way in which they cannot find each other; what to do is said."""


class RankFailedError(HvdGossipError, RuntimeError):
    """A rank of `hvd_gossip.run` raised, or ended without a result; the message holds its traceback.

    Attributes:
        rank: which one, or None if that is not known. `__cause__` is what it raised, where that can be pickled.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class NotInitializedError(HvdGossipError, ValueError):
    """The package was used before `init()` or after `shutdown()`."""

    def __init__(self) -> None:
        super().__init__("Horovod has not been initialized; use hvd.init().")


class TransportError(HvdGossipError, RuntimeError):
    """A message could not be sent or received."""


class PeerFailedError(TransportError):
    """A peer died or cannot be reached.

    Attributes:
        peer: the rank that is gone.
    """

    def __init__(self, peer: int, message: str | None = None) -> None:
        super().__init__(message or f"rank {peer} failed or cannot be reached")
        self.peer = peer


class WaitTimeoutError(HorovodInternalError):
    """A wait reached its time limit; the message says for whom and for what."""


class EngineError(HorovodInternalError):
    """The progress thread stopped because one of its coroutines raised; `__cause__` is what it raised."""
