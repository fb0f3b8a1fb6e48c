"""Nominal shares pass on to one rank, once, along any chain of departures."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.sharing import PoolKey, PoolSpec
from hvd_gossip.sharing.estates import Estates, left_shares
from hvd_gossip.sharing.intervals import nominal_share

SPEC = PoolSpec(100)


def key(epoch: int) -> PoolKey:
    return PoolKey("train", epoch)


def test_at_first_a_rank_has_its_own_share() -> None:
    assert Estates(1, 4).shares(key(0), SPEC) == [(25, 50)]


def test_an_heir_gets_the_share_of_pools_that_the_departed_did_not_know() -> None:
    left, heir = Estates(1, 4), Estates(2, 4)
    heir.inherit(left.bequeath([key(0)]))
    left.release()
    assert left.shares(key(1), SPEC) == []
    assert heir.shares(key(0), SPEC) == [(50, 75)]
    assert sorted(heir.shares(key(1), SPEC)) == [(25, 50), (50, 75)]


def test_left_shares_are_those_of_open_pools() -> None:
    estates = Estates(3, 4).bequeath([key(5)])
    assert left_shares(estates, 4, key(5), SPEC) == []
    assert left_shares(estates, 4, key(6), SPEC) == [(75, 100)]


@given(st.integers(2, 6), st.data())
def test_each_share_of_each_pool_is_dealt_once(size: int, data: st.DataObject) -> None:
    """Ranks open pools and depart in any order; a departing one leaves its estates to a live one."""
    estates = {rank: Estates(rank, size) for rank in range(size)}
    opened: dict[int, set[PoolKey]] = {rank: set() for rank in range(size)}
    dealt: Counter[tuple[PoolKey, tuple[int, int]]] = Counter()

    def open_pool(rank: int, which: PoolKey) -> None:
        if which not in opened[rank]:
            opened[rank].add(which)
            dealt.update((which, share) for share in estates[rank].shares(which, PoolSpec(size)))

    for _ in range(data.draw(st.integers(0, 20))):
        rank = data.draw(st.sampled_from(sorted(estates)))
        if data.draw(st.booleans()) or len(estates) == 1:
            open_pool(rank, key(data.draw(st.integers(0, 3))))
            continue
        heir = data.draw(st.sampled_from(sorted(set(estates) - {rank})))
        left = estates.pop(rank).bequeath(opened[rank])
        for which in opened[heir]:
            dealt.update((which, share) for share in left_shares(left, size, which, PoolSpec(size)))
        estates[heir].inherit(left)
    for rank in estates:
        for epoch in range(4):
            open_pool(rank, key(epoch))
    assert dealt == {(key(epoch), nominal_share(rank, size, size)): 1 for epoch in range(4) for rank in range(size)}
