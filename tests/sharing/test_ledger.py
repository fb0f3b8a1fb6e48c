"""When an epoch is over: asserted against required, and the news of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.sharing.ledger import Ledger, pack, unpack


def ledgers(size: int, absent: tuple[int, ...] = ()) -> list[Ledger]:
    return [Ledger(rank, np.zeros(size, np.int32), absent) for rank in range(size)]


def test_over_when_everybody_has_asserted() -> None:
    first, second = ledgers(2)
    first.assert_empty(0)
    assert not first.exhausted()
    assert list(first.suspects()) == [1]
    second.assert_empty(7)
    first.merge(second.table())
    assert first.exhausted()
    assert list(first.suspects()) == []


def test_a_grant_voids_what_the_receiver_asserted_before_it() -> None:
    asker, giver, watcher = ledgers(3)
    asker.assert_empty(4)
    watcher.merge(asker.table())
    giver.require(0, 5)
    giver.assert_empty(0)
    watcher.merge(giver.table())
    watcher.assert_empty(0)
    assert not watcher.exhausted()
    assert list(watcher.suspects()) == [0]
    asker.assert_empty(5)
    watcher.merge(asker.table())
    assert watcher.exhausted()


def test_an_old_table_takes_nothing_back() -> None:
    one, two = ledgers(2)
    one.assert_empty(1)
    old = one.table()
    one.assert_empty(9)
    two.merge(one.table())
    two.merge(old)
    two.require(0, 8)
    two.assert_empty(0)
    assert two.exhausted()


def test_absent_ranks_do_not_count_and_are_no_suspects() -> None:
    ledger = ledgers(4, absent=(2,))[0]
    ledger.exclude(3)
    ledger.assert_empty(0)
    assert list(ledger.suspects()) == [1]
    ledger.exclude(1)
    assert ledger.exhausted()


def test_a_departed_ranks_knowledge_is_required_too() -> None:
    heir, watcher = ledgers(2)
    heir.assert_empty(3)
    watcher.merge(heir.table())
    watcher.assert_empty(0)
    watcher.raise_floor(np.array([7, 0], np.int32))
    assert not watcher.exhausted()


def test_nothing_to_tell_is_nothing_to_send() -> None:
    ledger, other = ledgers(2)
    assert ledger.table() == b""
    other.merge(b"")
    assert list(other.suspects()) == [0]


@given(st.lists(st.integers(0, 2**31 - 1), max_size=200))
def test_packing_round_trips(values: list[int]) -> None:
    numbers = np.array(values, np.int32)
    assert unpack(pack(numbers)).tolist() == values


def test_tables_of_a_thousand_ranks_fit_into_one_eager_message() -> None:
    stream, ledger = np.random.default_rng(0), ledgers(1024)[0]
    for rank, other in enumerate(ledgers(1024)):
        if stream.random() < 0.3:
            other.require(rank, int(stream.integers(1, 60)))
        other.assert_empty(int(stream.integers(40, 80)))
        ledger.merge(other.table())
    assert ledger.exhausted() or ledger.suspects().size < 1024
    assert len(ledger.table()) < 2048


@given(st.integers(2, 6), st.data())
def test_never_over_while_somebody_has_something_or_a_grant_is_under_way(size: int, data: st.DataObject) -> None:
    """Random histories of grants, consumption and gossip between holders: `exhausted` implies that nothing is left."""
    books = ledgers(size)
    units = [data.draw(st.integers(0, 2)) for _ in range(size)]
    numbers = [0] * size
    under_way: list[tuple[int, int, int]] = []
    for _ in range(data.draw(st.integers(0, 60))):
        rank, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
        action = data.draw(st.sampled_from(["use", "ask", "arrive", "gossip"]))
        waiting = [grant for grant in under_way if grant[0] == rank]
        if action == "use" and units[rank]:
            units[rank] -= 1
        elif action == "ask" and other != rank and not waiting:
            numbers[rank] += 1
            given_away = min(units[other], 1)
            units[other] -= given_away
            if given_away:
                books[other].require(rank, numbers[rank])
            under_way.append((rank, numbers[rank], given_away))
        elif action == "arrive" and waiting:
            under_way.remove(waiting[0])
            units[rank] += waiting[0][2]
            if waiting[0][2]:
                books[rank].require(rank, waiting[0][1])
        elif action == "gossip" and other != rank:
            books[other].merge(books[rank].table())
        open_ = [number for who, number, _ in under_way if who == rank]
        if not units[rank]:
            books[rank].assert_empty(min(open_, default=numbers[rank] + 1) - 1)
        left = sum(units) + sum(grant[2] for grant in under_way)
        assert not left or not any(book.exhausted() for book in books)
