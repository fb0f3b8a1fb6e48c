"""Whose nominal shares a rank starts a pool with: its own, and those of departed ranks that left it theirs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from hvd_gossip.sharing.intervals import Interval, nominal_share
from hvd_gossip.sharing.messages import PoolKey, PoolSpec

Dealt = Mapping[int, Collection[PoolKey]]
"""By rank: the pools in which its nominal share has been dealt with (and is not to be handed out again)."""


def left_shares(estates: Dealt, size: int, key: PoolKey, spec: PoolSpec) -> list[Interval]:
    """The nominal shares of a pool that belong to whoever holds these estates."""
    return [nominal_share(rank, size, spec.units) for rank, dealt in estates.items() if key not in dealt]


class Estates:
    """The estates that one rank holds, its own among them. Owner: the engine's thread."""

    def __init__(self, rank: int, size: int) -> None:
        self._size = size
        self._dealt: dict[int, frozenset[PoolKey]] = {rank: frozenset()}

    def shares(self, key: PoolKey, spec: PoolSpec) -> list[Interval]:
        """What this rank has of a pool that it hears of for the first time."""
        return left_shares(self._dealt, self._size, key, spec)

    def bequeath(self, known: Iterable[PoolKey]) -> Dealt:
        """All estates, for a successor: in the pools known here they are dealt with."""
        known = frozenset(known)
        return {rank: dealt | known for rank, dealt in self._dealt.items()}

    def inherit(self, estates: Dealt) -> None:
        self._dealt.update({rank: frozenset(dealt) for rank, dealt in estates.items()})

    def release(self) -> None:
        """They are another rank's now."""
        self._dealt.clear()
