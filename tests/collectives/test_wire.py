"""Control messages survive their way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.collectives import entries, wire
from hvd_gossip.collectives.request import KINDS, Signature
from hvd_gossip.errors import TransportError

words = st.integers(0, 2**32 - 1)
sizes = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)
ids = st.lists(words, max_size=5).map(tuple)
signatures = st.builds(
    Signature,
    name=st.text(min_size=1, max_size=20),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(["float32", "bfloat16", "bool"]),
    shape=st.lists(st.integers(0, 2**40), max_size=5).map(tuple),
    op=st.integers(0, 5),
    prescale=st.floats(allow_nan=False),
    postscale=st.floats(allow_nan=False),
    root_rank=st.integers(0, 2**31 - 1),
    process_set=st.integers(0, 2**31 - 1),
    live_only=st.booleans(),
    device=st.sampled_from(["CPU", "GPU"]),
    group=st.text(max_size=5),
    group_size=st.integers(0, 9),
)
ENTRIES: Any = st.one_of(
    st.builds(entries.Define, words, signatures),
    st.builds(entries.Evict, ids),
    st.builds(entries.Answer, words, st.binary(max_size=20), sizes, ids),
    st.builds(entries.Execute, words, ids, sizes, ids),
    st.builds(entries.Failure, st.integers(0, 9), st.text(max_size=9), ids, st.booleans(), st.text(max_size=30)),
    st.builds(entries.Departed, words, st.booleans()),
    st.builds(entries.Abort, words, words, st.text(max_size=30)),
    st.builds(entries.ChangeSet, st.integers(0, 9), ids, st.text(max_size=30)),
)


@given(signatures)
def test_signature(signature: Signature) -> None:
    assert wire.decode_signature(wire.encode_signature(signature)) == signature


@given(
    st.lists(
        st.builds(
            wire.Submission,
            words | signatures,
            st.integers(0, 2**40),
            st.none() | st.binary(max_size=9),
            st.lists(st.integers(-(2**40), 2**40), max_size=4).map(tuple),
        )
    )
)
def test_requests(submissions: list[wire.Submission]) -> None:
    data = wire.encode_requests(submissions)
    assert wire.message_type(data) == wire.REQUESTS
    decoded = wire.decode_requests(data)
    plain = [one._replace(payload=None if one.payload is None else bytes(one.payload)) for one in decoded]
    assert plain == submissions


@given(st.lists(ENTRIES))
def test_answers(sent: list[entries.Entry]) -> None:
    data = entries.encode_answers(sent)
    assert wire.message_type(data) == wire.ANSWERS
    received = [
        entry._replace(payload=bytes(entry.payload)) if isinstance(entry, entries.Answer) else entry
        for entry in entries.decode_answers(data)
    ]
    assert received == sent
    assert [type(entry) for entry in received] == [type(entry) for entry in sent]


def test_an_empty_payload_is_not_none() -> None:
    both = [wire.Submission(1, 0, b""), wire.Submission(2, 0, None)]
    assert [one.payload is None for one in wire.decode_requests(wire.encode_requests(both))] == [False, True]


def test_a_cached_request_is_short() -> None:
    assert len(wire.encode_requests([wire.Submission(7, 0, b"12345678")])) <= 32


def test_reports_and_plain_messages() -> None:
    report = wire.encode_report(12, "rank 3: lost")
    assert wire.message_type(report) == wire.REPORT
    assert wire.decode_report(report) == (12, "rank 3: lost")
    assert wire.message_type(wire.encode_plain(wire.DEPART)) == wire.DEPART


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x00\x00\x00\x00\x00", b"\x09\x00\x00\x00\x00"])
def test_what_is_not_ours_is_refused(data: bytes) -> None:
    with pytest.raises(TransportError, match="not one of ours"):
        wire.message_type(data)
