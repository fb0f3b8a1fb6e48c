"""The response cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives.cache import ResponseCache
from hvd_gossip.collectives.request import Signature


def signature(name: str, length: int = 1) -> Signature:
    return Signature(name, "allreduce", shape=(length,))


def filled(capacity: int, names: str) -> ResponseCache:
    cache = ResponseCache(capacity)
    for number, name in enumerate(names):
        cache.define(number, signature(name))
    return cache


def test_finds_the_very_signature() -> None:
    cache = filled(4, "ab")
    assert cache.find(signature("b")) == 1
    assert cache.find(signature("b", 2)) is None
    assert cache.find(signature("c")) is None
    assert cache.id_of((0, "b")) == 1
    assert cache.get(0) == signature("a")
    assert cache.get(9) is None


def test_a_new_signature_of_a_name_makes_the_old_id_void() -> None:
    cache = filled(4, "ab")
    assert cache.define(2, signature("a", 5)) == 0
    assert cache.get(0) is None
    assert cache.find(signature("a", 5)) == 2
    assert len(cache) == 2


def test_defining_twice_changes_nothing() -> None:
    cache = filled(4, "ab")
    assert cache.define(0, signature("a")) is None
    assert list(cache._entries) == [0, 1]


def test_ids_are_never_used_twice() -> None:
    cache = filled(1, "abc")
    cache.evict((0, 1, 2))
    assert cache.next_id == 3


def test_least_recently_used_goes_first_but_not_what_is_pinned() -> None:
    cache = filled(2, "abcd")
    cache.touch(0)
    assert cache.surplus(()) == (1, 2)
    assert cache.surplus({(0, "b")}) == (2, 3)
    assert cache.surplus({(0, name) for name in "abcd"}) == ()
    assert [one.name for one in cache.evict((1, 2, 77))] == ["b", "c"]
    assert cache.surplus(()) == ()


def test_capacity_zero_is_never_found() -> None:
    cache = filled(0, "a")
    assert cache.find(signature("a")) is None
    assert cache.surplus(()) == (0,)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 2)), max_size=40), st.integers(0, 4))
def test_holds_what_a_plain_list_would(uses: list[tuple[str, int]], capacity: int) -> None:
    cache, order = ResponseCache(capacity), list[Signature]()
    for name, length in uses:
        one = signature(name, length)
        number = cache.id_of(one.key)
        if number is None or cache.get(number) != one:
            number = cache.next_id
            cache.define(number, one)
        assert cache.touch(number) == one
        cache.evict(cache.surplus(()))
        order = [other for other in order if other.name != name] + [one]
        order = order[len(order) - capacity :] if capacity < len(order) else order
        assert list(cache._entries.values()) == order


def test_an_id_that_is_void_cannot_be_used() -> None:
    with pytest.raises(KeyError):
        filled(1, "a").touch(5)
