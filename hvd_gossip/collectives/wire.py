"""Control messages as bytes: requests on their way to the coordinator, its answers to all, departures.

The first byte is the type. Numbers are little-endian and unaligned. A request repeated under a cached id and its answer
take one struct each, since they are what a small collective's latency is made of.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hvd_gossip.collectives.request import Signature
from hvd_gossip.errors import TransportError

REQUESTS, ANSWERS, DEPART, ACKNOWLEDGE, REPORT = range(1, 6)
"""Types of messages: requests, the coordinator's answers, a departure announced to the coordinator, its acknowledgement
by each peer, and an operation that failed on one rank."""

NO_PAYLOAD = 0xFFFFFFFF

_HEAD = struct.Struct("<BI")
_SUBMISSION = struct.Struct("<?IqI")
_ANSWER = struct.Struct("<BIIH")
_EXECUTE = struct.Struct("<BIHI")
_FAILURE = struct.Struct("<B?iIII")
_DEPARTED = struct.Struct("<BIB")
_ABORT = struct.Struct("<BIII")
_EVICT = struct.Struct("<BI")
_DEFINE = struct.Struct("<BII")
_SIGNATURE = struct.Struct("<HHHBBiiBdd?BI")
_KIND_CODES = ("allreduce", "allgather", "broadcast", "barrier", "alltoall", "reducescatter", "join")


class Submission(NamedTuple):
    """One request as the coordinator sees it.

    Attributes:
        id: the cached id of its signature, or the signature itself.
        length: the first dimension, for allgather; else 0.
        payload: the array's bytes, if they are few, or None.
    """

    id: int | Signature
    length: int
    payload: Any


class Define(NamedTuple):
    """From here on `id` stands for `signature`; an older id of the same name is void."""

    id: int
    signature: Signature


class Evict(NamedTuple):
    """These ids are void."""

    ids: tuple[int, ...]


class Answer(NamedTuple):
    """The result of a small operation. `sizes` as in Result."""

    id: int
    payload: Any
    sizes: tuple[int, ...]


class Execute(NamedTuple):
    """These operations run now, as one if there are several, as the `sequence`-th transfer."""

    sequence: int
    ids: tuple[int, ...]
    sizes: tuple[int, ...]


class Failure(NamedTuple):
    """What `ranks` submitted under a name fails."""

    process_set: int
    name: str
    ranks: tuple[int, ...]
    timed_out: bool
    text: str


class Departed(NamedTuple):
    """A rank takes part in nothing any more: it shut down, or it died."""

    rank: int
    died: bool


class Abort(NamedTuple):
    """The transfer failed on `rank`; the others give it up."""

    sequence: int
    rank: int
    text: str


Entry = Define | Evict | Answer | Execute | Failure | Departed | Abort
_DEFINE_CODE, _EVICT_CODE, _ANSWER_CODE, _EXECUTE_CODE, _FAILURE_CODE, _DEPARTED_CODE, _ABORT_CODE = range(7)


def encode_requests(submissions: Sequence[Submission]) -> bytes:
    """A message of requests."""
    parts: list[Any] = [_HEAD.pack(REQUESTS, len(submissions))]
    for number, length, payload in submissions:
        size = NO_PAYLOAD if payload is None else len(payload)
        if isinstance(number, int):
            parts.append(_SUBMISSION.pack(True, number, length, size))
        else:
            text = encode_signature(number)
            parts += (_SUBMISSION.pack(False, len(text), length, size), text)
        if payload is not None:
            parts.append(payload)
    return b"".join(parts)


def decode_requests(data: bytes) -> list[Submission]:
    """The requests of a message; payloads are views of it."""
    view, position = memoryview(data), _HEAD.size
    submissions = []
    for _ in range(_HEAD.unpack_from(data)[1]):
        cached, number, length, size = _SUBMISSION.unpack_from(data, position)
        position += _SUBMISSION.size
        what: int | Signature = number
        if not cached:
            what = decode_signature(view[position : position + number])
            position += number
        payload = None
        if size != NO_PAYLOAD:
            payload = view[position : position + size]
            position += size
        submissions.append(Submission(what, length, payload))
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


def encode_answers(entries: Sequence[Entry]) -> bytes:
    """A message of the coordinator's entries, in their order."""
    parts: list[Any] = [_HEAD.pack(ANSWERS, len(entries))]
    for entry in entries:
        _ENCODERS[type(entry)](parts, entry)
    return b"".join(parts)


def _encode_define(parts: list[Any], entry: Define) -> None:
    text = encode_signature(entry.signature)
    parts += (_DEFINE.pack(_DEFINE_CODE, entry.id, len(text)), text)


def _encode_evict(parts: list[Any], entry: Evict) -> None:
    parts += (_EVICT.pack(_EVICT_CODE, len(entry.ids)), _words(entry.ids))


def _encode_answer(parts: list[Any], entry: Answer) -> None:
    parts.append(_ANSWER.pack(_ANSWER_CODE, entry.id, len(entry.payload), len(entry.sizes)))
    if entry.sizes:
        parts.append(_longs(entry.sizes))
    parts.append(entry.payload)


def _encode_execute(parts: list[Any], entry: Execute) -> None:
    parts.append(_EXECUTE.pack(_EXECUTE_CODE, entry.sequence, len(entry.sizes), len(entry.ids)))
    parts += (_longs(entry.sizes), _words(entry.ids))


def _encode_failure(parts: list[Any], entry: Failure) -> None:
    name, text = entry.name.encode(), entry.text.encode()
    head = (_FAILURE_CODE, entry.timed_out, entry.process_set, len(entry.ranks), len(name), len(text))
    parts += (_FAILURE.pack(*head), _words(entry.ranks), name, text)


def _encode_departed(parts: list[Any], entry: Departed) -> None:
    parts.append(_DEPARTED.pack(_DEPARTED_CODE, entry.rank, entry.died))


def _encode_abort(parts: list[Any], entry: Abort) -> None:
    text = entry.text.encode()
    parts += (_ABORT.pack(_ABORT_CODE, entry.sequence, entry.rank, len(text)), text)


_ENCODERS: dict[type, Any] = {
    Define: _encode_define,
    Evict: _encode_evict,
    Answer: _encode_answer,
    Execute: _encode_execute,
    Failure: _encode_failure,
    Departed: _encode_departed,
    Abort: _encode_abort,
}


def decode_answers(data: bytes) -> Iterable[Entry]:
    """The entries of a message; an answer's payload is a view of it."""
    reader = _Reader(data)
    for _ in range(_HEAD.unpack_from(data)[1]):
        yield _DECODERS[data[reader.position]](reader)


class _Reader:
    """A position in a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)
        self.position = _HEAD.size

    def head(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Fields of a layout, without the code that they begin with."""
        fields = layout.unpack_from(self._data, self.position)
        self.position += layout.size
        return fields[1:]

    def take(self, size: int) -> memoryview:
        self.position += size
        return self._view[self.position - size : self.position]

    def text(self, size: int) -> str:
        return bytes(self.take(size)).decode()

    def words(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}I", self.take(4 * count))

    def longs(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}q", self.take(8 * count)) if count else ()


def _decode_define(reader: _Reader) -> Define:
    number, size = reader.head(_DEFINE)
    return Define(number, decode_signature(reader.take(size)))


def _decode_evict(reader: _Reader) -> Evict:
    return Evict(reader.words(reader.head(_EVICT)[0]))


def _decode_answer(reader: _Reader) -> Answer:
    number, size, count = reader.head(_ANSWER)
    sizes = reader.longs(count)
    return Answer(number, reader.take(size), sizes)


def _decode_execute(reader: _Reader) -> Execute:
    sequence, sizes, ids = reader.head(_EXECUTE)
    lengths = reader.longs(sizes)
    return Execute(sequence, reader.words(ids), lengths)


def _decode_failure(reader: _Reader) -> Failure:
    timed_out, process_set, count, name_size, text_size = reader.head(_FAILURE)
    ranks = reader.words(count)
    name = reader.text(name_size)
    return Failure(process_set, name, ranks, timed_out, reader.text(text_size))


def _decode_departed(reader: _Reader) -> Departed:
    rank, died = reader.head(_DEPARTED)
    return Departed(rank, bool(died))


def _decode_abort(reader: _Reader) -> Abort:
    sequence, rank, size = reader.head(_ABORT)
    return Abort(sequence, rank, reader.text(size))


_DECODERS = (
    _decode_define, _decode_evict, _decode_answer, _decode_execute, _decode_failure, _decode_departed, _decode_abort,
)  # fmt: skip


def encode_report(sequence: int, text: str) -> bytes:
    """A message that a transfer failed on its sender."""
    return _HEAD.pack(REPORT, sequence) + text.encode()


def decode_report(data: bytes) -> tuple[int, str]:
    """The inverse of `encode_report`: (sequence, text)."""
    return _HEAD.unpack_from(data)[1], data[_HEAD.size :].decode()


def encode_plain(kind: int) -> bytes:
    """A message that is only its type: DEPART or ACKNOWLEDGE."""
    return _HEAD.pack(kind, 0)


def message_type(data: bytes) -> int:
    """The type of a message.

    Raises:
        TransportError: it has none that exists.
    """
    if len(data) < _HEAD.size or not REQUESTS <= data[0] <= REPORT:
        raise TransportError(f"a control message of {len(data)} bytes begins with {bytes(data[:8])!r}: not one of ours")
    return data[0]


def _words(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _longs(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)
