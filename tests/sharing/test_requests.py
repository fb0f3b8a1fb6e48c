"""Numbers of requests: each answer counts once, and everybody knows up to where all is settled."""

from __future__ import annotations

import pytest

from hvd_gossip.sharing.requests import FIRST_LEAD_TIME, Requests


def test_an_answer_counts_once() -> None:
    requests: Requests[str] = Requests()
    number = requests.new(3, "pool", now=0.0)
    assert requests.settle(number, now=1.0) == "pool"
    assert requests.settle(number, now=1.0) is None
    assert requests.settle(99, now=1.0) is None


def test_settled_stops_before_the_first_open_request() -> None:
    requests: Requests[str] = Requests()
    assert requests.settled() == 0
    one, two = requests.new(1, "", 0.0), requests.new(2, "", 0.0)
    three = requests.new_settled()
    requests.settle(two, 0.0)
    assert (one, two, three) == (1, 2, 3)
    assert requests.settled() == 0
    requests.settle(one, 0.0)
    assert requests.settled() == 3


def test_what_a_dead_rank_was_asked_is_settled() -> None:
    requests: Requests[str] = Requests()
    for peer, about in ((1, "a"), (2, "b"), (1, "c")):
        requests.new(peer, about, 0.0)
    assert requests.peers() == [1, 2]
    assert requests.drop(1) == ["a", "c"]
    assert (len(requests), requests.peers(), requests.settled()) == (1, [2], 1)


def test_the_lead_time_follows_the_answers() -> None:
    requests: Requests[str] = Requests()
    assert requests.lead_time() == FIRST_LEAD_TIME
    for _ in range(50):
        requests.settle(requests.new(1, "", now=10.0), now=10.1)
    assert requests.lead_time() == pytest.approx(0.4, rel=0.01)


def test_repeated_requests_are_recognized_by_source() -> None:
    requests: Requests[str] = Requests()
    assert not requests.is_repeated(1, 5)
    assert requests.is_repeated(1, 5)
    assert requests.is_repeated(1, 4)
    assert not requests.is_repeated(2, 4)
    assert not requests.is_repeated(1, 7)
