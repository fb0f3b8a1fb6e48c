"""What the ranks tell one another about shared pools. Pickled: all of them are processes of one job."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from typing import NamedTuple

from hvd_gossip.sharing.intervals import Interval


class PoolKey(NamedTuple):
    """Which pool: the name of what is shared, the epoch, and how often this epoch was gone through before."""

    name: str
    epoch: int
    repetition: int = 0

    def __str__(self) -> str:
        again = f", repetition {self.repetition}" if self.repetition else ""
        return f"{self.name!r}, epoch {self.epoch}{again}"


class PoolSpec(NamedTuple):
    """What all ranks must agree on: the number of units, and a description of what they are and how they are ordered."""

    units: int
    what: str = "units"

    def __str__(self) -> str:
        return f"{self.units} x {self.what}"


class Request(NamedTuple):
    """A worker asks for units.

    Attributes:
        remaining: units that it still has.
        under_way: those that its training thread has taken and is not done with, as far as can be told.
        taken, seconds: units that the thread has taken in all, and since when it takes.
        want: what it takes at once.
        urgent: its training thread waits.
        table: what its ledger knows.
    """

    number: int
    key: PoolKey
    spec: PoolSpec
    remaining: int
    under_way: float
    taken: int
    seconds: float
    want: int
    urgent: bool
    table: bytes


class Reply(NamedTuple):
    """The answer to the request of that number.

    Attributes:
        granted: units that now belong to the asker.
        remaining: units that the answering rank still has.
        table: what its ledger knows.
        exhausted: nobody has anything left.
        problem: why nothing can be shared between the two, if that is so.
    """

    number: int
    granted: tuple[Interval, ...] = ()
    remaining: int = 0
    table: bytes = b""
    exhausted: bool = False
    problem: str = ""


class Handover(NamedTuple):
    """A departing rank gives all it has to one other.

    Attributes:
        pools: the rest of every pool that it has something of.
        estates: by rank (itself, and those that it inherited from), the pools in which that rank's nominal share is
            already dealt with; in every other pool, now or later, it is the receiver's.
    """

    number: int
    pools: tuple[tuple[PoolKey, PoolSpec, tuple[Interval, ...]], ...]
    estates: Mapping[int, Collection[PoolKey]]


class Receipt(NamedTuple):
    """The answer to a hand-over: refused (the receiver departs too), or what the receiver noted it under."""

    number: int
    accepted: bool
    noted_as: int = 0


class Departed(NamedTuple):
    """The sender will neither ask nor have anything any more. `floor`: the least `required` of every ledger, packed."""

    floor: bytes


class Acknowledged(NamedTuple):
    """The sender has heard of the receiver's departure: it sends it nothing after this."""


class Disagreement(NamedTuple):
    """The sender's script makes something else of a pool: nobody can use it."""

    key: PoolKey
    problem: str


class Probe(NamedTuple):
    """Means nothing; that it cannot be sent means that the receiver is dead."""


Message = Request | Reply | Handover | Receipt | Departed | Acknowledged | Disagreement | Probe


def encode(message: Message) -> bytes:
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def decode(data: bytes) -> Message:
    message: Message = pickle.loads(data)
    return message
