"""The coordinator's entries, which every rank follows in one order, and their bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hvd_gossip.collectives.request import Signature
from hvd_gossip.collectives.wire import ANSWERS, HEAD, decode_signature, encode_signature, longs, words

_ANSWER = struct.Struct("<BIIIH")
_EXECUTE = struct.Struct("<BIHIH")
_FAILURE = struct.Struct("<B?iIII")
_DEPARTED = struct.Struct("<BIB")
_ABORT = struct.Struct("<BIII")
_EVICT = struct.Struct("<BI")
_DEFINE = struct.Struct("<BII")
_CHANGE = struct.Struct("<BqII")


class Define(NamedTuple):
    """From here on `id` stands for `signature`; an older id of the same name is void."""

    id: int
    signature: Signature


class Evict(NamedTuple):
    """These ids are void."""

    ids: tuple[int, ...]


class Answer(NamedTuple):
    """The result of a small operation.

    Attributes:
        payload: allreduce, reducescatter: the whole reduction; allgather, alltoall: all ranks' rows.
        sizes: allgather: as in Result; alltoall: the splits of all ranks, one after the other; join: the rank that joined
            last.
        absent: the ranks that do not take part since they have joined.
    """

    id: int
    payload: Any
    sizes: tuple[int, ...]
    absent: tuple[int, ...] = ()


class Execute(NamedTuple):
    """These operations run now, as one if there are several, as the `sequence`-th transfer.

    Attributes:
        sizes: for allgather, as in Result.
        absent: the ranks that have not submitted them since they have joined.
    """

    sequence: int
    ids: tuple[int, ...]
    sizes: tuple[int, ...]
    absent: tuple[int, ...] = ()


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


class ChangeSet(NamedTuple):
    """A process set is registered, or without ranks removed; or its request is refused because of `text`."""

    process_set: int
    ranks: tuple[int, ...]
    text: str


Entry = Define | Evict | Answer | Execute | Failure | Departed | Abort | ChangeSet
_DEFINE_CODE, _EVICT_CODE, _ANSWER_CODE, _EXECUTE_CODE = range(4)
_FAILURE_CODE, _DEPARTED_CODE, _ABORT_CODE, _CHANGE_CODE = range(4, 8)


def encode_answers(entries: Sequence[Entry]) -> bytes:
    """A message of the coordinator's entries, in their order."""
    parts: list[Any] = [HEAD.pack(ANSWERS, len(entries))]
    for entry in entries:
        _ENCODERS[type(entry)](parts, entry)
    return b"".join(parts)


def _encode_define(parts: list[Any], entry: Define) -> None:
    text = encode_signature(entry.signature)
    parts += (_DEFINE.pack(_DEFINE_CODE, entry.id, len(text)), text)


def _encode_evict(parts: list[Any], entry: Evict) -> None:
    parts += (_EVICT.pack(_EVICT_CODE, len(entry.ids)), words(entry.ids))


def _encode_answer(parts: list[Any], entry: Answer) -> None:
    number, payload, sizes, absent = entry
    parts.append(_ANSWER.pack(_ANSWER_CODE, number, len(payload), len(sizes), len(absent)))
    if sizes:
        parts.append(longs(sizes))
    if absent:
        parts.append(words(absent))
    parts.append(payload)


def _encode_execute(parts: list[Any], entry: Execute) -> None:
    sequence, ids, sizes, absent = entry
    parts.append(_EXECUTE.pack(_EXECUTE_CODE, sequence, len(sizes), len(ids), len(absent)))
    parts += (longs(sizes), words(ids), words(absent))


def _encode_failure(parts: list[Any], entry: Failure) -> None:
    name, text = entry.name.encode(), entry.text.encode()
    head = (_FAILURE_CODE, entry.timed_out, entry.process_set, len(entry.ranks), len(name), len(text))
    parts += (_FAILURE.pack(*head), words(entry.ranks), name, text)


def _encode_departed(parts: list[Any], entry: Departed) -> None:
    parts.append(_DEPARTED.pack(_DEPARTED_CODE, entry.rank, entry.died))


def _encode_abort(parts: list[Any], entry: Abort) -> None:
    text = entry.text.encode()
    parts += (_ABORT.pack(_ABORT_CODE, entry.sequence, entry.rank, len(text)), text)


def _encode_change(parts: list[Any], entry: ChangeSet) -> None:
    text = entry.text.encode()
    parts += (_CHANGE.pack(_CHANGE_CODE, entry.process_set, len(entry.ranks), len(text)), longs(entry.ranks), text)


_ENCODERS: dict[type, Any] = {
    Define: _encode_define,
    Evict: _encode_evict,
    Answer: _encode_answer,
    Execute: _encode_execute,
    Failure: _encode_failure,
    Departed: _encode_departed,
    Abort: _encode_abort,
    ChangeSet: _encode_change,
}


def decode_answers(data: bytes) -> Iterable[Entry]:
    """The entries of a message; an answer's payload is a view of it."""
    reader = _Reader(data)
    for _ in range(HEAD.unpack_from(data)[1]):
        yield _DECODERS[data[reader.position]](reader)


class _Reader:
    """A position in a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._view = memoryview(data)
        self.position = HEAD.size

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
        return struct.unpack(f"<{count}I", self.take(4 * count)) if count else ()

    def longs(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}q", self.take(8 * count)) if count else ()


def _decode_define(reader: _Reader) -> Define:
    number, size = reader.head(_DEFINE)
    return Define(number, decode_signature(reader.take(size)))


def _decode_evict(reader: _Reader) -> Evict:
    return Evict(reader.words(reader.head(_EVICT)[0]))


def _decode_answer(reader: _Reader) -> Answer:
    number, size, count, absent = reader.head(_ANSWER)
    sizes = reader.longs(count)
    missing = reader.words(absent)
    return Answer(number, reader.take(size), sizes, missing)


def _decode_execute(reader: _Reader) -> Execute:
    sequence, sizes, ids, absent = reader.head(_EXECUTE)
    lengths = reader.longs(sizes)
    numbers = reader.words(ids)
    return Execute(sequence, numbers, lengths, reader.words(absent))


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


def _decode_change(reader: _Reader) -> ChangeSet:
    process_set, count, size = reader.head(_CHANGE)
    ranks = reader.longs(count)
    return ChangeSet(process_set, ranks, reader.text(size))


_DECODERS = (
    _decode_define, _decode_evict, _decode_answer, _decode_execute, _decode_failure, _decode_departed, _decode_abort,
    _decode_change,
)  # fmt: skip
