"""Control messages as bytes: requests on their way to the coordinator, departures, reports. Answers are in entries.py.

The first byte is the type. Numbers are little-endian and unaligned. A request repeated under a cached id and its answer
take one struct each, since they are what a small collective's latency is made of.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from hvd_gossip.collectives.request import KINDS, PROCESS_SET_KINDS, Signature
from hvd_gossip.errors import TransportError

REQUESTS, ANSWERS, DEPART, ACKNOWLEDGE, REPORT = range(1, 6)
"""Types of messages: requests, the coordinator's answers, a departure announced to the coordinator, its acknowledgement
by each peer, and an operation that failed on one rank."""

NO_PAYLOAD = 0xFFFFFFFF

HEAD = struct.Struct("<BI")
_SUBMISSION = struct.Struct("<BIqI")
_CACHED, _SPLITS = 1, 2
"""Flags of a submission: its signature is an id; splits follow."""
_COUNT = struct.Struct("<I")
_SIGNATURE = struct.Struct("<HHHBBiiHdd?BI")
_KIND_CODES = KINDS + PROCESS_SET_KINDS


class Submission(NamedTuple):
    """One request as the coordinator sees it.

    Attributes:
        id: the cached id of its signature, or the signature itself.
        length: the first dimension, for allgather and alltoall; else 0.
        payload: the array's bytes, if they are few, or None.
        splits: for alltoall, as in Request.
    """

    id: int | Signature
    length: int
    payload: Any
    splits: tuple[int, ...] = ()


def encode_requests(submissions: Sequence[Submission]) -> bytes:
    """A message of requests."""
    parts: list[Any] = [HEAD.pack(REQUESTS, len(submissions))]
    for number, length, payload, splits in submissions:
        size = NO_PAYLOAD if payload is None else len(payload)
        flags = _SPLITS if splits else 0
        if isinstance(number, int):
            parts.append(_SUBMISSION.pack(flags | _CACHED, number, length, size))
        else:
            text = encode_signature(number)
            parts += (_SUBMISSION.pack(flags, len(text), length, size), text)
        if splits:
            parts += (_COUNT.pack(len(splits)), longs(splits))
        if payload is not None:
            parts.append(payload)
    return b"".join(parts)


def decode_requests(data: bytes) -> list[Submission]:
    """The requests of a message; payloads are views of it."""
    view, position = memoryview(data), HEAD.size
    submissions = []
    for _ in range(HEAD.unpack_from(data)[1]):
        flags, number, length, size = _SUBMISSION.unpack_from(data, position)
        position += _SUBMISSION.size
        what: int | Signature = number
        if not flags & _CACHED:
            what = decode_signature(view[position : position + number])
            position += number
        splits: tuple[int, ...] = ()
        if flags & _SPLITS:
            (count,) = _COUNT.unpack_from(data, position)
            splits = struct.unpack_from(f"<{count}q", data, position + _COUNT.size)
            position += _COUNT.size + 8 * count
        payload = None
        if size != NO_PAYLOAD:
            payload = view[position : position + size]
            position += size
        submissions.append(Submission(what, length, payload, splits))
    return submissions


def encode_signature(signature: Signature) -> bytes:
    """A signature as bytes."""
    name, dtype, group = signature.name.encode(), signature.dtype.encode(), signature.group.encode()
    head = _SIGNATURE.pack(
        len(name),
        len(dtype),
        len(group),
        _KIND_CODES.index(signature.kind),
        signature.op,
        signature.root_rank,
        signature.process_set,
        len(signature.shape),
        signature.prescale,
        signature.postscale,
        signature.live_only,
        signature.device == "GPU",
        signature.group_size,
    )
    return b"".join((head, struct.pack(f"<{len(signature.shape)}q", *signature.shape), name, dtype, group))


def decode_signature(data: bytes | memoryview) -> Signature:
    """The inverse of `encode_signature`."""
    fields = _SIGNATURE.unpack_from(data)
    name_length, dtype_length, group_length, kind, op, root, process_set, ndim, prescale, postscale = fields[:10]
    live_only, gpu, group_size = fields[10:]
    start = _SIGNATURE.size + 8 * ndim
    shape = struct.unpack_from(f"<{ndim}q", data, _SIGNATURE.size)
    texts = []
    for length in (name_length, dtype_length, group_length):
        texts.append(bytes(data[start : start + length]).decode())
        start += length
    return Signature(
        texts[0], _KIND_CODES[kind], texts[1], shape, op, prescale, postscale, root, process_set, live_only,
        "GPU" if gpu else "CPU", texts[2], group_size,
    )  # fmt: skip


def encode_report(sequence: int, text: str) -> bytes:
    """A message that a transfer failed on its sender."""
    return HEAD.pack(REPORT, sequence) + text.encode()


def decode_report(data: bytes) -> tuple[int, str]:
    """The inverse of `encode_report`: (sequence, text)."""
    return HEAD.unpack_from(data)[1], data[HEAD.size :].decode()


def encode_plain(kind: int) -> bytes:
    """A message that is only its type: DEPART or ACKNOWLEDGE."""
    return HEAD.pack(kind, 0)


def message_type(data: bytes) -> int:
    """The type of a message.

    Raises:
        TransportError: it has none that exists.
    """
    if len(data) < HEAD.size or not REQUESTS <= data[0] <= REPORT:
        raise TransportError(f"a control message of {len(data)} bytes begins with {bytes(data[:8])!r}: not one of ours")
    return data[0]


def words(values: Sequence[int]) -> bytes:
    """Numbers of 4 bytes."""
    return struct.pack(f"<{len(values)}I", *values)


def longs(values: Sequence[int]) -> bytes:
    """Numbers of 8 bytes."""
    return struct.pack(f"<{len(values)}q", *values)
