"""Small operations: the payload rides in the request, the coordinator computes, the answer carries the result.

One message to the coordinator and one back, whatever the operation: for a kilobyte that is several times faster than
negotiating first and exchanging data afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hvd_gossip.collectives.memory import HOST, is_on_device
from hvd_gossip.collectives.reduction import reduction_of
from hvd_gossip.collectives.request import Request, Signature, dtype_of
from hvd_gossip.collectives.wire import Submission
from hvd_gossip.transport.endpoint import Array

EAGER_BYTES = 256 << 10
"""Default of what one operation may make the coordinator send: a payload of at most this divided by the ranks is small."""

Outcome = tuple[Any, tuple[int, ...]]
"""The result's bytes, and the sizes for allgather."""


def payload_of(request: Request, rank: int, size: int, eager_bytes: int = EAGER_BYTES) -> Any:
    """The bytes to send along with a request: a flat uint8 view, or None if it is not a small one on the host."""
    array = request.array
    if array is None:
        return b""
    limit = eager_bytes // size
    if request.kind == "allgather":
        limit //= size
    if array.nbytes > limit or is_on_device(array):
        return None
    if request.kind == "broadcast" and rank != request.root_rank:
        return b""
    return array.reshape(-1).view(np.uint8)


def compute(signature: Signature, submissions: Mapping[int, Submission]) -> Outcome | None:
    """The result of an operation whose ranks all sent a payload, or None if some did not.

    Args:
        submissions: by rank.
    """
    parts = [submissions[rank].payload for rank in sorted(submissions)]
    if any(part is None for part in parts):
        return None
    if signature.kind == "allreduce":
        return _allreduce(signature, parts), ()
    if signature.kind == "allgather":
        return b"".join(parts), tuple(submissions[rank].length for rank in sorted(submissions))
    return submissions[signature.root_rank].payload if signature.kind == "broadcast" else b"", ()


def _allreduce(signature: Signature, parts: list[Any]) -> Any:
    if len(parts[0]) == 0:
        return b""
    dtype = dtype_of(signature.dtype)
    arrays = [np.frombuffer(part, np.uint8).view(dtype) for part in parts]
    out = np.empty(len(arrays[0]), dtype)
    with HOST.computing():
        reduction_of(signature, out, len(parts)).reduce_all(arrays, out)
    return out.view(np.uint8)


def unpack(payload: Any, output: Array) -> None:
    """output <- an answer's payload."""
    if output.size:
        output.reshape(-1)[...] = np.frombuffer(payload, np.uint8).view(output.dtype)
