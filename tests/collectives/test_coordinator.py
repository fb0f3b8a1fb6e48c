"""The coordinator as a state machine: what it is told, and which entries it gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvd_gossip.collectives import Request, Sum
from hvd_gossip.collectives.cache import ResponseCache
from hvd_gossip.collectives.coordinator import Coordinator
from hvd_gossip.collectives.entries import Abort, Answer, ChangeSet, Define, Departed, Entry, Evict, Execute, Failure
from hvd_gossip.collectives.state import State
from hvd_gossip.collectives.wire import Submission


class Bench:
    """A coordinator of `size` ranks and a clock to turn by hand."""

    def __init__(self, size: int, capacity: int = 8, fusion_threshold: int = 1 << 20, cycle_time: float = 1.0) -> None:
        self.now = 0.0
        self.state = State(ResponseCache(capacity), {0: tuple(range(size))}, {})
        self.coordinator = Coordinator(self.state, fusion_threshold, cycle_time, lambda: self.now)

    def submit(
        self, rank: int, name: str, kind: str = "allreduce", length: int = 4, small: bool = False, **more: Any
    ) -> None:
        array = None if kind in ("barrier", "join") else np.ones(length, np.float32)
        if kind == "allreduce":
            more.setdefault("op", Sum)
        request = Request(name, kind, array, **more)
        payload = b"" if array is None else array.tobytes() if small else None
        self.coordinator.submit(rank, [Submission(request.signature(), length, payload)])

    def take(self, idle: bool = True) -> list[Entry]:
        entries = self.coordinator.take(idle)
        for entry in entries:
            if isinstance(entry, Evict):
                self.state.cache.evict(entry.ids)
        return entries


def kinds(entries: list[Entry]) -> list[type]:
    return [type(entry) for entry in entries]


def test_a_name_is_answered_when_the_last_rank_has_submitted_it() -> None:
    bench = Bench(3)
    for rank in (2, 0):
        bench.submit(rank, "x", small=True)
        assert bench.take() == []
    negotiation = bench.coordinator.negotiations[0]
    assert bench.coordinator.missing(negotiation) == [1]
    bench.submit(1, "x", small=True)
    define, answer = bench.take()
    assert isinstance(define, Define)
    assert isinstance(answer, Answer)
    assert define.id == answer.id
    assert np.frombuffer(answer.payload, np.float32).tolist() == [3, 3, 3, 3]
    assert bench.coordinator.negotiations == []


def test_transfers_are_numbered_in_one_order_and_fused() -> None:
    bench = Bench(2)
    for name in "ab":
        for rank in range(2):
            bench.submit(rank, name)
    first = bench.take()
    assert kinds(first) == [Define, Define, Execute]
    assert isinstance(first[2], Execute)
    assert first[2] == Execute(0, (first[0].id, first[1].id), ())  # type: ignore[union-attr]
    for rank in range(2):
        bench.submit(rank, "rows", "allgather", length=rank + 5)
    last = bench.take()[-1]
    assert isinstance(last, Execute)
    assert (last.sequence, last.sizes) == (1, (5, 6))


def test_a_known_signature_is_submitted_by_its_id_and_not_defined_again() -> None:
    bench = Bench(2)
    for rank in range(2):
        bench.submit(rank, "x", small=True)
    number = bench.take()[0].id  # type: ignore[union-attr]
    payload = np.ones(4, np.float32).tobytes()
    for rank in range(2):
        bench.coordinator.submit(rank, [Submission(number, 0, payload)])
    assert kinds(bench.take()) == [Answer]


def test_a_void_id_is_ignored() -> None:
    bench = Bench(2)
    bench.coordinator.submit(0, [Submission(55, 0, b"")])
    assert bench.coordinator.negotiations == []
    assert bench.take() == []


def test_surplus_ids_become_void_after_their_use_but_not_those_under_negotiation() -> None:
    bench = Bench(2, capacity=1)
    for name in "ab":
        for rank in range(2):
            bench.submit(rank, name, small=True)
    entries = bench.take()
    assert kinds(entries) == [Define, Answer, Define, Answer, Evict]
    assert entries[-1] == Evict((0,))
    bench.coordinator.submit(0, [Submission(1, 0, None)])  # "b" waits for rank 1
    for rank in range(2):
        bench.submit(rank, "c", small=True)
    assert bench.take()[-1] == Evict((2,))


def test_ids_of_what_is_held_back_stay_valid() -> None:
    bench = Bench(2, capacity=0)
    for rank in range(2):
        bench.submit(rank, "held")
        bench.submit(rank, "x", small=True)
    entries = bench.take(idle=False)
    assert kinds(entries) == [Define, Answer, Evict]
    assert kinds(bench.take(idle=True)) == [Define, Execute, Evict]


def test_allreduces_are_held_back_while_a_transfer_runs_until_the_cycle_ends() -> None:
    bench = Bench(2, cycle_time=1.0)
    for rank in range(2):
        bench.submit(rank, "a")
    assert bench.take(idle=False) == []
    assert bench.coordinator.due == 1.0
    bench.now = 0.9
    for rank in range(2):
        bench.submit(rank, "b")
    assert bench.take(idle=False) == []
    bench.now = 1.0
    assert kinds(bench.take(idle=False)) == [Define, Define, Execute]
    assert bench.coordinator.due is None


def test_nothing_is_held_back_beyond_the_threshold_or_with_other_kinds() -> None:
    bench = Bench(2, fusion_threshold=32)
    for name in "ab":
        for rank in range(2):
            bench.submit(rank, name)
    assert kinds(bench.take(idle=False)) == [Define, Define, Execute]
    for rank in range(2):
        bench.submit(rank, "rows", "allgather")
    assert kinds(bench.take(idle=False)) == [Define, Execute]


def test_a_departure_fails_what_waits_and_everything_after_it() -> None:
    bench = Bench(3)
    for rank in (1, 2):
        bench.submit(rank, "x")
    bench.coordinator.depart(2)
    departed, failure = bench.take()
    assert departed == Departed(2, False)
    assert isinstance(failure, Failure)
    assert (failure.name, failure.ranks, failure.timed_out) == ("x", (1,), False)
    assert failure.text == "allreduce 'x' cannot be done: rank 2 has shut down. It was submitted by rank 1."
    bench.submit(0, "x")
    assert kinds(bench.take()) == [Failure]
    bench.submit(2, "x")  # what a departed rank had under way
    bench.coordinator.depart(2)
    assert bench.take() == []


def test_a_departure_completes_what_is_live_only() -> None:
    bench = Bench(3)
    for rank in (0, 1):
        bench.submit(rank, "x", small=True, live_only=True)
    bench.coordinator.depart(2, died=True)
    entries = bench.take()
    assert kinds(entries) == [Departed, Define, Answer]
    assert entries[0] == Departed(2, True)
    assert np.frombuffer(entries[2].payload, np.float32)[0] == 2  # type: ignore[union-attr]


def test_what_is_ready_goes_out_before_a_departure_since_the_leaver_takes_part() -> None:
    bench = Bench(2)
    for rank in range(2):
        bench.submit(rank, "x")
    bench.coordinator.depart(1)
    assert kinds(bench.take(idle=False)) == [Define, Execute, Departed]


def test_a_departed_ranks_own_submissions_are_void() -> None:
    bench = Bench(2)
    bench.submit(1, "x")
    bench.coordinator.depart(1)
    assert kinds(bench.take()) == [Departed]
    assert bench.coordinator.negotiations == []


def test_a_mismatch_ends_when_the_odd_rank_departs() -> None:
    bench = Bench(3)
    bench.submit(2, "x", length=9, small=True, live_only=True)
    bench.submit(0, "x", small=True, live_only=True)
    bench.coordinator.depart(2)
    bench.submit(1, "x", small=True, live_only=True)
    assert kinds(bench.take()) == [Departed, Define, Answer]


def test_the_root_of_a_live_only_broadcast_may_have_departed() -> None:
    bench = Bench(3)
    bench.coordinator.depart(1)
    for rank in (0, 2):
        bench.submit(rank, "x", "broadcast", root_rank=1, live_only=True)
    failure = bench.take()[-1]
    assert isinstance(failure, Failure)
    assert failure.text == "broadcast 'x': root rank 1 does not take part"


def test_given_up_names_fail_on_late_ranks_once() -> None:
    bench = Bench(3)
    bench.submit(0, "x")
    bench.coordinator.give_up(bench.coordinator.negotiations[0], "too late")
    assert bench.take() == [Failure(0, "x", (0,), True, "too late")]
    bench.submit(2, "x")
    assert bench.take() == [Failure(0, "x", (2,), True, "too late")]
    bench.submit(0, "x")
    bench.submit(2, "x")
    assert bench.take() == []
    assert len(bench.coordinator.negotiations) == 1


def test_a_request_that_cannot_be_computed_fails_alone() -> None:
    bench = Bench(2)
    signature = Request("x", "allreduce", np.ones(4, np.float32)).signature()
    for rank in range(2):
        bench.coordinator.submit(rank, [Submission(signature, 0, b"123")])
        bench.submit(rank, "y", small=True)
    failure, *others = bench.take()
    assert isinstance(failure, Failure)
    assert "allreduce 'x'" in failure.text
    assert kinds(others) == [Define, Answer]


def test_reports_become_aborts() -> None:
    bench = Bench(2)
    bench.coordinator.report(1, 7, "rank 1: no route")
    assert bench.take() == [Abort(7, 1, "rank 1: no route")]


def test_decisions_reach_the_ranks_own_state_only_when_they_are_followed() -> None:
    """Answers before a departure in one message count the leaver, on the coordinator as on all others."""
    bench = Bench(2)
    for rank in range(2):
        bench.submit(rank, "x", small=True)
    bench.coordinator.depart(1)
    assert kinds(bench.take()) == [Define, Answer, Departed]
    assert bench.state.live() == (0, 1)


def test_who_is_gone() -> None:
    state = State(ResponseCache(1), {0: (0, 1, 2, 3), 1: (1, 2)}, {2: False, 3: False, 0: True})
    assert state.live() == (1,)
    assert state.live(1) == (1,)
    assert state.describe_gone() == "ranks 2-3 have shut down and rank 0 has failed"
    assert state.describe_gone(1) == "rank 2 has shut down"


def test_who_joined_is_named_in_what_runs_without_it() -> None:
    bench = Bench(3)
    bench.submit(0, "x")
    bench.submit(1, "small", small=True)
    bench.submit(2, "join", "join")
    assert bench.take() == []
    assert bench.coordinator.missing(bench.coordinator.negotiations[0]) == [1]
    bench.submit(1, "x")
    bench.submit(0, "small", small=True)
    entries = bench.take()
    assert [one.absent for one in entries if isinstance(one, Execute | Answer)] == [(2,), (2,)]
    for rank in (1, 0):
        assert bench.take() == []
        bench.submit(rank, "join", "join")
    last = bench.take()[-1]
    assert isinstance(last, Answer)
    assert last.sizes == (0,)
    assert bench.coordinator.negotiations == []


def test_a_join_ends_after_what_it_completes() -> None:
    """Rank 1 is the last to join, and what only waited for it still runs without it."""
    bench = Bench(2)
    bench.submit(0, "x", small=True)
    bench.submit(0, "join", "join")
    bench.submit(1, "join", "join")
    answers = [one for one in bench.take() if isinstance(one, Answer)]
    assert [one.absent for one in answers] == [(1,), ()]
    assert np.frombuffer(answers[0].payload, np.float32).tolist() == [1, 1, 1, 1]


def test_a_process_set_is_there_as_soon_as_it_is_agreed_on_and_gone_at_once() -> None:
    bench = Bench(2)
    ranks = np.array([1])
    for rank in range(2):
        bench.coordinator.submit(rank, [submission(Request("process_set", "add_process_set", ranks))])
    bench.submit(1, "x", small=True, process_set=1)
    assert kinds(bench.take()) == [ChangeSet, Define, Answer]
    for rank in range(2):
        bench.coordinator.submit(rank, [submission(Request("process_set", "remove_process_set", ranks))])
    bench.submit(1, "x", small=True, process_set=1)
    change, failure = bench.take()
    assert change == ChangeSet(1, (), "")
    assert failure == Failure(1, "x", (1,), False, "Process set 1 has been removed.")


def test_no_request_takes_the_coordinator_down() -> None:
    bench = Bench(2)
    signature = Request("process_set", "remove_process_set", np.array([1])).signature()
    for rank in range(2):
        bench.coordinator.submit(rank, [Submission(signature._replace(shape=()), 0, None)])
    odd = Request("x", "reducescatter", np.ones(3)).signature()._replace(dtype="nonsense")
    for rank in range(2):
        bench.coordinator.submit(rank, [Submission(odd, 0, b"1234")])
    failures = bench.take()
    assert {type(one) for one in failures} == {Failure}
    bench.submit(0, "y", small=True)
    bench.submit(1, "y", small=True)
    assert kinds(bench.take()) == [Define, Answer]


def submission(request: Request) -> Submission:
    return Submission(request.signature(), 0, b"")
