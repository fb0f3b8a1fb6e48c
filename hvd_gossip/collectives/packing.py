"""Small arrays that are reduced together travel as one: a group of them costs the negotiation of a single tensor.

Unlike fusion (`fusion.py`), which joins the transfers of operations that were negotiated one by one, packing takes place before
the request is made, so that neither the caller nor the coordinator spends time on every tensor.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from hvd_gossip.buffers.arrays import module_of
from hvd_gossip.collectives.memory import is_on_device
from hvd_gossip.collectives.request import ReduceOp, Request, Result, name_of
from hvd_gossip.errors import HorovodInternalError
from hvd_gossip.transport.endpoint import Array

PACK_BYTES = 64 << 10
"""Arrays of at most so many bytes are packed. Larger ones are reduced where they lie: a copy would cost more than it saves."""

SHAPES_SHOWN = 8
"""So many members an error names."""


class Pending(Protocol):
    """A submitted request's handle."""

    def done(self) -> bool: ...

    def wait(self) -> Result: ...


class Pair(NamedTuple):
    """An array to reduce and the one that the result goes to, which may be the same."""

    source: Array
    output: Array


class Pack:
    """Arrays of one type and device, one behind the other in a 1-D array of their own. Owner: the caller's thread."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        sources = [pair.source.reshape(-1) for pair in pairs]
        self.array = module_of(sources[0]).concatenate(sources)
        self._outputs: Sequence[Array] = [pair.output for pair in pairs]
        in_place = all(pair.output is pair.source for pair in pairs)
        self._flat = sources if in_place else [output.reshape(-1) for output in self._outputs]

    def describe(self) -> str:
        """What an error of the pack leaves out: whose shapes it has."""
        shown = ", ".join(str(list(output.shape)) for output in self._outputs[:SHAPES_SHOWN])
        more = len(self._outputs) - SHAPES_SHOWN
        return f"It stands for tensors that travel as one, here of shapes {shown}{f' and {more} more' if more > 0 else ''}."

    def unpack(self) -> None:
        """Gives every output its part."""
        start = 0
        for output in self._flat:
            stop = start + output.size
            output[...] = self.array[start:stop]
            start = stop


Context = Callable[[], AbstractContextManager[object]]
"""Makes the context in which arrays are copied: for CuPy's, the stream that the framework works on."""


class PackedPending:
    """The reduction of a pack, for each of its members: whoever waits first unpacks for all."""

    def __init__(self, pending: Pending, pack: Pack, context: Context) -> None:
        self._pending = pending
        self._pack = pack
        self._context = context
        self._result: Result | None = None

    def done(self) -> bool:
        """Whether `wait` returns, or raises, at once."""
        return self._pending.done()

    def wait(self) -> Result:
        """Returns when the outputs are written."""
        if self._result is None:
            result = self._wait()
            with self._context():
                self._pack.unpack()
            self._result = result
        return self._result

    def _wait(self) -> Result:
        try:
            return self._pending.wait()
        except HorovodInternalError as error:
            raise type(error)(f"{error} {self._pack.describe()}") from error


def reduce_together(
    submit: Callable[[Request], Pending],
    name: str,
    pairs: Sequence[Pair],
    fields: Mapping[str, Any],
    context: Context = nullcontext,
) -> list[Pending]:
    """Starts the allreduce of several arrays as a whole: all are reduced, or none.

    All requests are made, and so checked, before the first is submitted.

    Args:
        submit: takes a request and returns its handle.
        name: of the whole.
        pairs: on every rank as many, of the same shapes and types, in the same order.
        fields: of the requests: op, prescale, postscale, process_set...
        context: in which results are copied to their outputs.

    Returns:
        For each pair what waits for it.

    Raises:
        ValueError: an array cannot be reduced.
    """
    bins = _bins([pair.source for pair in pairs], fields.get("op"))
    packs = {number: Pack([pairs[index] for index in bin_]) for number, bin_ in enumerate(bins) if len(bin_) > 1}
    layout = _digest(tuple([(pair.source.shape, pair.source.dtype) for pair in pairs]))
    group = f"{name}, {len(pairs)} tensors, layout {layout:08x}"
    requests = []
    for number, bin_ in enumerate(bins):
        source = packs[number].array if number in packs else pairs[bin_[0]].source
        output = source if number in packs else pairs[bin_[0]].output
        own = f"{name}_{number + 1}"
        requests.append(Request(own, "allreduce", source, output=output, group=group, group_size=len(bins), **fields))
    waiting: dict[int, Pending] = {}
    for number, (bin_, request) in enumerate(zip(bins, requests, strict=True)):
        pending = submit(request)
        if number in packs:
            pending = PackedPending(pending, packs[number], context)
        waiting.update(dict.fromkeys(bin_, pending))
    return [waiting[index] for index in range(len(pairs))]


def _bins(arrays: Sequence[Array], op: int | None) -> list[list[int]]:
    """Which arrays travel as one, by their places; Adasum combines every array by itself."""
    bins: dict[Any, list[int]] = {}
    longest = PACK_BYTES if op != ReduceOp.ADASUM else -1
    for index, array in enumerate(arrays):
        if array.nbytes > longest or not array.flags.c_contiguous:
            bins[index] = [index]
        else:
            device = array.device.id if is_on_device(array) else -1
            bins.setdefault((array.dtype, device), []).append(index)
    return list(bins.values())


@lru_cache(maxsize=1024)
def _digest(forms: tuple[tuple[tuple[int, ...], Any], ...]) -> int:
    """A number that differs if the shapes or dtypes do, the same in every process."""
    return zlib.crc32(repr([(shape, name_of(dtype)) for shape, dtype in forms]).encode())
