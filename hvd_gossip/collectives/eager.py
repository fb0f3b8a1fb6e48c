"""Small operations: the payload rides in the request, the coordinator computes, the answer carries the result.

One message to the coordinator and one back, whatever the operation: for a kilobyte that is several times faster than
negotiating first and exchanging data afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from hvd_gossip.collectives.adasum import adasum_all
from hvd_gossip.collectives.memory import HOST, is_on_device
from hvd_gossip.collectives.reduction import reduction_of
from hvd_gossip.collectives.request import BY_ROWS, REDUCING, ReduceOp, Request, Result, Signature, dtype_of
from hvd_gossip.collectives.rows import bounds_of, even_rows, full_splits, starts_of
from hvd_gossip.collectives.wire import Submission
from hvd_gossip.transport.endpoint import Array

EAGER_BYTES = 256 << 10
"""Default of what one operation may make the coordinator send: a payload of at most this divided by the ranks is small."""

Outcome = tuple[Any, tuple[int, ...]]
"""The payload and the sizes of an Answer."""


def payload_of(request: Request, rank: int, size: int, eager_bytes: int = EAGER_BYTES) -> Any:
    """The bytes to send along with a request: a flat uint8 view, or None if it is not a small one on the host."""
    array = request.array
    if array is None:
        return b""
    limit = eager_bytes // size
    if request.kind in BY_ROWS:
        limit //= size
        if request.kind == "alltoall" and size * size * 8 > eager_bytes:  # the answer holds everybody's splits
            return None
    if array.nbytes > limit or is_on_device(array):
        return None
    if request.kind == "broadcast" and rank != request.root_rank:
        return b""
    return array.reshape(-1).view(np.uint8)


def compute(
    signature: Signature, submissions: Mapping[int, Submission], absent: tuple[int, ...] = ()
) -> Outcome | None:
    """The result of an operation whose ranks all sent a payload, or None if some did not.

    Args:
        submissions: by rank; at least one.
        absent: ranks that have joined: they count as zeros unless the operation is `live_only`.
    """
    ranks = sorted(submissions)
    parts = [submissions[rank].payload for rank in ranks]
    if any(part is None for part in parts):
        return None
    if signature.kind in REDUCING:
        if absent and not signature.live_only:
            parts = _with_zeros(signature, submissions, absent)
        return _reduce(signature, parts), ()
    if signature.kind == "allgather":
        return b"".join(parts), tuple(submissions[rank].length for rank in ranks)
    if signature.kind == "alltoall":
        return _alltoall(signature, [submissions[rank] for rank in ranks])
    if signature.kind == "join":
        return b"", (next(reversed(list(submissions))),)
    return submissions[signature.root_rank].payload if signature.kind == "broadcast" else b"", ()


def _with_zeros(signature: Signature, submissions: Mapping[int, Submission], absent: tuple[int, ...]) -> list[Any]:
    """The payloads in the order of the ranks, the absent ones' included."""
    zeros = bytes(signature.nbytes)
    return [submissions[rank].payload if rank in submissions else zeros for rank in sorted((*submissions, *absent))]


def _reduce(signature: Signature, parts: list[Any]) -> Any:
    if len(parts[0]) == 0:
        return b""
    dtype = dtype_of(signature.dtype)
    arrays = [np.frombuffer(part, np.uint8).view(dtype) for part in parts]
    out = np.empty(len(arrays[0]), dtype)
    with HOST.computing():
        if signature.op == ReduceOp.ADASUM:
            adasum_all(arrays, out, signature.prescale * signature.postscale)
        else:
            reduction_of(signature, out, len(parts)).reduce_all(arrays, out)
    return out.view(np.uint8)


def _alltoall(signature: Signature, submissions: list[Submission]) -> Outcome:
    matrix: list[int] = []
    parts = []
    for one in submissions:
        splits = full_splits(one.splits, one.length, len(submissions))
        matrix += splits
        parts.append(one.payload[: sum(splits) * signature.nbytes])
    return b"".join(parts), tuple(matrix)


def result_of(request: Request, payload: Any, sizes: tuple[int, ...], ranks: tuple[int, ...], rank: int) -> Result:
    """One rank's result of an answer.

    Args:
        sizes: the answer's.
        ranks: who takes part; `rank` is one of them.
    """
    array: Array | None = request.array
    if request.kind == "join":
        return Result(None, (), ranks, sizes[0])
    if array is None:
        return Result(None, (), ranks)
    if request.kind == "reducescatter":
        rows = even_rows(array.shape[0], len(ranks))
        start, stop = bounds_of(rows, ranks.index(rank))
        row = prod(array.shape[1:]) * array.itemsize
        mine = np.empty((stop - start, *array.shape[1:]), array.dtype)
        unpack(payload[start * row : stop * row], mine)
        return Result(mine, rows, ranks)
    if request.kind == "alltoall":
        return _take_column(array, payload, sizes, ranks, rank)
    output = request.output
    if output is None:
        output = np.empty((sum(sizes), *array.shape[1:]) if request.kind == "allgather" else array.shape, array.dtype)
    unpack(payload, output)
    return Result(output, sizes, ranks)


def _take_column(array: Array, payload: Any, matrix: tuple[int, ...], ranks: tuple[int, ...], rank: int) -> Result:
    """What all ranks have for this one, of what all have for all."""
    count, position = len(ranks), ranks.index(rank)
    received = matrix[position::count]
    output = np.empty((sum(received), *array.shape[1:]), array.dtype)
    row = prod(array.shape[1:]) * array.itemsize
    begins, into = starts_of(matrix), starts_of(received)
    for index in range(count):
        begin = begins[index * count + position]
        unpack(payload[begin * row : (begin + received[index]) * row], output[into[index] : into[index + 1]])
    return Result(output, received, ranks)


def unpack(payload: Any, output: Array) -> None:
    """output <- an answer's payload."""
    if output.size:
        output.reshape(-1)[...] = np.frombuffer(payload, np.uint8).view(output.dtype)
