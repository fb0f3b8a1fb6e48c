"""Results that the coordinator computes from the requests' payloads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives import Adasum, Average, Min, ReduceOp, Request, Sum
from hvd_gossip.collectives.eager import compute, payload_of, result_of, unpack
from hvd_gossip.collectives.request import BY_ROWS
from hvd_gossip.collectives.wire import Submission
from tests.collectives.cluster import assert_reduced, reduced, reductions, values


def submissions(requests: list[Request], **options: Any) -> dict[int, Submission]:
    size = len(requests)
    return {
        rank: Submission(0, len(request.array) if request.kind in BY_ROWS else 0,  # type: ignore[arg-type]
                         payload_of(request, rank, size, **options), request.splits)
        for rank, request in enumerate(requests)
    }  # fmt: skip


@given(reduction=reductions, size=st.integers(1, 5), shape=st.lists(st.integers(0, 4), max_size=2).map(tuple))
def test_allreduce(reduction: tuple[Any, ReduceOp], size: int, shape: tuple[int, ...]) -> None:
    dtype, op = reduction
    arrays = [values(dtype, shape, rank) for rank in range(size)]
    requests = [Request("x", "allreduce", array, Sum if dtype.kind == "b" else op) for array in arrays]
    outcome = compute(requests[0].signature(), submissions(requests))
    assert outcome is not None
    out = np.empty(shape, dtype)
    unpack(bytes(outcome[0]), out)
    assert_reduced(out, reduced(arrays, requests[0].op))


def test_payloads_may_lie_at_any_offset_of_a_message() -> None:
    """They come as views of a received message: unaligned, read-only."""
    array = np.arange(5, dtype=np.float64)
    views = [memoryview(b"?" * rank + array.tobytes())[rank:] for rank in range(3)]
    request = Request("x", "allreduce", array, Sum)
    outcome = compute(request.signature(), {rank: Submission(0, 0, view) for rank, view in enumerate(views)})
    assert outcome is not None
    out = np.empty(5)
    unpack(memoryview(b"?" + bytes(outcome[0]))[1:], out)
    assert out.tolist() == [0, 3, 6, 9, 12]


def test_allgather_in_the_order_of_the_ranks() -> None:
    requests = [Request("x", "allgather", np.full((rank, 2), rank, np.int16)) for rank in range(3)]
    unordered = dict(reversed(submissions(requests).items()))
    outcome = compute(requests[0].signature(), unordered)
    assert outcome is not None
    assert outcome[1] == (0, 1, 2)
    assert np.frombuffer(outcome[0], np.int16).tolist() == [1, 1, 2, 2, 2, 2]


def test_broadcast_takes_the_roots_payload_and_the_others_send_none() -> None:
    requests = [Request("x", "broadcast", np.full(3, rank), root_rank=1) for rank in range(3)]
    sent = submissions(requests)
    assert [len(sent[rank].payload) for rank in range(3)] == [0, 24, 0]
    outcome = compute(requests[0].signature(), sent)
    assert outcome is not None
    assert bytes(outcome[0]) == np.full(3, 1).tobytes()


def test_every_rank_takes_its_rows_of_a_reducescatter() -> None:
    requests = [Request("x", "reducescatter", np.full((5, 2), rank + 1.0), Sum) for rank in range(3)]
    outcome = compute(requests[0].signature(), submissions(requests))
    assert outcome is not None
    results = [result_of(request, *outcome, (3, 5, 8), rank) for request, rank in zip(requests, (3, 5, 8), strict=True)]
    assert [result.output.tolist() for result in results] == [[[6, 6]] * 2, [[6, 6]] * 2, [[6, 6]]]
    assert {result.sizes for result in results} == {(2, 2, 1)}


def test_every_rank_takes_its_column_of_an_alltoall() -> None:
    arrays = [np.array([0, 1, 2, 99]), np.array([10, 11]), np.array([20, 21])]
    splits: list[tuple[int, ...]] = [(1, 0, 2), (0, 1, 1), (2, 0, 0)]
    requests = [Request("x", "alltoall", array, splits=one) for array, one in zip(arrays, splits, strict=True)]
    outcome = compute(requests[0].signature(), submissions(requests))
    assert outcome is not None
    results = [result_of(request, *outcome, (0, 1, 2), rank) for rank, request in enumerate(requests)]
    assert [result.output.tolist() for result in results] == [[0, 20, 21], [10], [1, 2, 11]]
    assert [result.sizes for result in results] == [(1, 0, 2), (0, 1, 0), (2, 1, 0)]


def test_an_alltoall_of_many_ranks_is_not_small() -> None:
    request = Request("x", "alltoall", np.empty(0))
    assert payload_of(request, 0, 11, eager_bytes=1000) is not None
    assert payload_of(request, 0, 12, eager_bytes=1000) is None


def test_absent_ranks_are_zeros() -> None:
    requests = [Request("x", "allreduce", np.array([4.0, -4.0]), op) for op in (Average, Min, Adasum)]
    for request, wanted in zip(requests, ([2, -2], [0, -4], [4, -4]), strict=True):
        outcome = compute(request.signature(), submissions([request]), absent=(1,))
        assert outcome is not None
        assert outcome[0].view(np.float64).tolist() == wanted


def test_join() -> None:
    sent = dict(reversed(submissions([Request("j", "join")] * 3).items()))
    assert compute(Request("j", "join").signature(), sent) == (b"", (0,))
    assert result_of(Request("j", "join"), b"", (2,), (0, 1, 2), 1) == (None, (), (0, 1, 2), 2)


def test_barrier() -> None:
    assert compute(Request("x", "barrier").signature(), submissions([Request("x", "barrier")] * 3)) == (b"", ())


@pytest.mark.parametrize(
    ("kind", "largest"), [("allreduce", 1024 // 4), ("broadcast", 1024 // 4), ("allgather", 1024 // 16)]
)
def test_only_small_payloads(kind: str, largest: int) -> None:
    def payload(length: int) -> Any:
        return payload_of(Request("x", kind, np.zeros(length, np.uint8)), 0, 4, eager_bytes=1024)

    assert len(payload(largest)) == largest
    assert payload(largest + 1) is None


def test_no_result_without_all_payloads() -> None:
    requests = [Request("x", "allreduce", np.ones(3))] * 2
    sent = submissions(requests)
    sent[1] = sent[1]._replace(payload=None)
    assert compute(requests[0].signature(), sent) is None
