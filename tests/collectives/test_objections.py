"""What keeps a complete negotiation from being carried out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.collectives import Adasum, Request
from hvd_gossip.collectives.negotiation import Negotiation
from hvd_gossip.collectives.objections import is_power_of_two, objection
from hvd_gossip.collectives.wire import Submission


def negotiation(request: Request, ranks: range, absent: tuple[int, ...] = (), length: int = 0) -> Negotiation:
    signature = request.signature()
    one = Negotiation(signature, 0.0)
    for rank in ranks:
        one.add(rank, signature, Submission(signature, length, None, request.splits))
    one.absent = absent
    return one


def test_powers_of_two() -> None:
    assert [count for count in range(20) if is_power_of_two(count)] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("kind", ["allgather", "broadcast", "alltoall", "reducescatter"])
def test_those_who_have_joined_are_missed(kind: str) -> None:
    request = Request("x", kind, np.ones(2))
    assert objection(negotiation(request, range(2), absent=(2, 3), length=2)).startswith(
        f"{kind.capitalize()} is not supported with Join at this time. Ranks 2-3 joined before 'x'."
    )
    assert objection(negotiation(request, range(2), length=2)) == ""


@pytest.mark.parametrize(
    ("kind", "more"), [("allreduce", {}), ("barrier", {}), ("allgather", {"live_only": True}), ("join", {})]
)
def test_those_who_have_joined_are_not_missed(kind: str, more: dict[str, Any]) -> None:
    request = Request("x", kind, None if kind in ("barrier", "join") else np.ones(2), **more)
    assert objection(negotiation(request, range(2), absent=(2,))) == ""


def test_a_root_that_does_not_take_part() -> None:
    request = Request("x", "broadcast", np.ones(2), root_rank=2, live_only=True)
    assert objection(negotiation(request, range(2))) == "broadcast 'x': root rank 2 does not take part"


def test_adasum_counts_zeros_unless_it_is_live_only() -> None:
    for live_only, ranks, fails in ((False, 3, False), (True, 3, True), (True, 2, False), (False, 2, True)):
        request = Request("x", "allreduce", np.ones(2), Adasum, live_only=live_only)
        text = objection(negotiation(request, range(ranks), absent=(3,)))
        assert ("non-power of 2" in text) == fails
