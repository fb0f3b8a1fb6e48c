"""Results that the coordinator computes from the requests' payloads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives import ReduceOp, Request, Sum
from hvd_gossip.collectives.eager import compute, payload_of, unpack
from hvd_gossip.collectives.wire import Submission
from tests.collectives.cluster import assert_reduced, reduced, reductions, values


def submissions(requests: list[Request], **options: Any) -> dict[int, Submission]:
    size = len(requests)
    return {
        rank: Submission(0, len(request.array) if request.kind == "allgather" else 0,  # type: ignore[arg-type]
                         payload_of(request, rank, size, **options))
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
