"""Python objects as collective operations: pickled, so trust the ranks as you trust your own code."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvd_gossip import runtime
from hvd_gossip.basics import ProcessSet, global_process_set, operation_name, process_set_id
from hvd_gossip.collectives import Request, decode_object, decode_objects, encode_object


def broadcast_object(
    obj: Any, root_rank: int = 0, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Any:
    """Gives every rank the root's object (Horovod's function).

    Args:
        obj: anything that cloudpickle can pickle; what other ranks than the root pass is ignored.
        root_rank: whose object; a global rank.
        name: names the operation; default: by number, so ranks must call in the same order.
        process_set: the ranks that take part.

    Returns:
        On the root `obj` itself, elsewhere a copy.

    Raises:
        HorovodInternalError: the ranks disagree on the root, or one failed. ValueError: the process set is not
            registered, or this rank not in it.
    """
    number = process_set_id(process_set)
    name = operation_name("broadcast_object", name, number)
    is_root = runtime.current().world.rank == root_rank
    data = encode_object(obj) if is_root else np.empty(0, np.uint8)
    length = _broadcast(f"{name}.length", np.array([data.size], np.int64), root_rank, number)
    data = _broadcast(f"{name}.data", data if is_root else np.empty(length[0], np.uint8), root_rank, number)
    return obj if is_root else decode_object(data)


def allgather_object(obj: Any, name: str | None = None, process_set: ProcessSet = global_process_set) -> list[Any]:
    """Every member's object, in the order of ranks, on every member (Horovod's function). See `broadcast_object`."""
    number = process_set_id(process_set)
    name = operation_name("allgather_object", name, number)
    request = Request(name=name, kind="allgather", array=encode_object(obj), process_set=number)
    result = runtime.current().submit(request).wait()
    assert result.output is not None  # an allgather has one
    return decode_objects(result.output, result.sizes)


def _broadcast(name: str, array: np.ndarray, root_rank: int, process_set: int) -> np.ndarray:
    request = Request(
        name=name, kind="broadcast", array=array, root_rank=root_rank, output=array, process_set=process_set
    )
    runtime.current().submit(request).wait()
    return array
