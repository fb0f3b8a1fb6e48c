"""Tensors to the runtime: requests under full names, on contiguous tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from hvd_gossip import runtime
from hvd_gossip.calls import Call
from hvd_gossip.collectives import Request
from hvd_gossip.collectives.packing import Pair, reduce_together

from .arrays import Array, array_of, as_array, as_tensor, contiguous, copy_for_result, empty_for_result, ordered
from .handles import Handle, Pending, together


class Received(NamedTuple):
    """An output whose length the ranks together decide.

    Attributes:
        sizes: rows of each rank's part, in the order of `ranks`, the ranks that took part.
    """

    output: torch.Tensor
    sizes: tuple[int, ...]
    ranks: tuple[int, ...]


def into_copies(call: Call, tensors: Iterable[torch.Tensor]) -> list[Handle[torch.Tensor]]:
    """Starts an operation whose outputs are new tensors like its inputs; a grouped one by `group_into_copies`."""
    outputs = [copy_for_result(contiguous(tensor)) for tensor in tensors]
    started = _start(call, outputs, outputs)
    return [_gives(pending, output) for pending, output in zip(started, outputs, strict=True)]


def in_place(call: Call, tensors: Iterable[torch.Tensor]) -> list[Handle[torch.Tensor]]:
    """Starts an operation that overwrites its inputs; a grouped one by `group_in_place`."""
    targets = list(tensors)
    work = [contiguous(tensor) for tensor in targets]
    started = _start(call, work, work)
    return [_overwrites(pending, *pair) for pending, pair in zip(started, zip(targets, work, strict=True), strict=True)]


def group_in_place(call: Call, tensors: Iterable[torch.Tensor]) -> Handle[list[torch.Tensor]]:
    """Starts a grouped allreduce that overwrites its inputs, for who waits for all of them: one handle for the whole."""
    targets = list(tensors)
    work = [contiguous(tensor) for tensor in targets]

    def finish(_: object) -> list[torch.Tensor]:
        for target, own in zip(targets, work, strict=True):
            _overwrite(target, own)
        return targets

    return Handle(together(reduce_group(call.name, work, work, call.fields)), finish)


def group_into_copies(call: Call, tensors: Iterable[torch.Tensor]) -> Handle[list[torch.Tensor]]:
    """Starts a grouped allreduce whose outputs are new tensors, for who waits for all of them."""
    sources = [contiguous(tensor) for tensor in tensors]
    outputs = [empty_for_result(source) for source in sources]
    return Handle(together(reduce_group(call.name, sources, outputs, call.fields)), lambda _: outputs)


def into_new(call: Call, tensors: Iterable[torch.Tensor]) -> list[Handle[Received]]:
    """Starts an operation whose outputs have another number of rows than its inputs."""
    started = _start(call, [contiguous(tensor) for tensor in tensors])
    return [Handle(pending, _received) for pending in started]


def new_outputs(call: Call, tensors: Iterable[torch.Tensor]) -> list[Handle[torch.Tensor]]:
    """As `into_new`, for who wants the outputs alone."""
    return [Handle(handle, lambda received: received.output) for handle in into_new(call, tensors)]


def reduce_into(
    source: torch.Tensor,
    output: torch.Tensor,
    name: str,
    op: int,
    prescale: float = 1.0,
    postscale: float = 1.0,
    **more: Any,
) -> Handle[torch.Tensor]:
    """Submits an allreduce of one contiguous tensor (`output` may be `source`) under its full name."""
    fields = {"kind": "allreduce", "name": name, "op": op, "prescale": prescale, "postscale": postscale, **more}
    return _gives(runtime.current().submit(_request(source, output, fields, as_array)), output)


def reduce_group(
    name: str, sources: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], fields: Mapping[str, Any]
) -> list[Pending]:
    """Submits the allreduce of contiguous tensors as a whole, under its full name; `outputs` may be `sources`.

    Tensors of several devices are as many wholes.
    """
    on_cpu = all(source.is_cpu for source in sources)  # the usual case; to make all the device objects takes longer
    devices = dict.fromkeys(source.device for source in (sources[:1] if on_cpu else sources))
    if len(devices) == 1:
        return _reduce_group(name, sources, outputs, fields)
    waiting: dict[int, Pending] = {}
    for device in devices:
        places = [place for place, source in enumerate(sources) if source.device == device]
        own = [sources[place] for place in places]
        into = own if outputs is sources else [outputs[place] for place in places]
        waiting.update(zip(places, _reduce_group(f"{name} on {device}", own, into, fields), strict=True))
    return [waiting[place] for place in range(len(sources))]


def _reduce_group(
    name: str, sources: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], fields: Mapping[str, Any]
) -> list[Pending]:
    device = sources[0].device
    with ordered(device):
        arrays = [array_of(source) for source in sources]
        into = arrays if outputs is sources else [array_of(output) for output in outputs]
        pairs = [Pair(*pair) for pair in zip(arrays, into, strict=True)]
        return reduce_together(runtime.current().submit, name, pairs, fields, lambda: ordered(device))


def _start(call: Call, sources: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor] = ()) -> list[Pending]:
    """Submits one request a tensor. All are made, and so checked, before the first is submitted."""
    now = runtime.current()
    into: Sequence[torch.Tensor | None] = outputs or [None] * len(sources)
    requests = [_request(*one, array_of) for one in zip(sources, into, call.each(len(sources)), strict=True)]
    return [now.submit(request) for request in requests]


def _request(
    source: torch.Tensor,
    output: torch.Tensor | None,
    fields: Mapping[str, Any],
    array_of: Callable[[torch.Tensor], Array],
) -> Request:
    with ordered(source.device):
        array = array_of(source)
        into = array if output is source else None if output is None else array_of(output)
        return Request(array=array, output=into, **fields)


def _received(result: Any) -> Received:
    return Received(as_tensor(result.output), tuple(result.sizes), tuple(result.ranks))


def _gives(pending: Pending, output: torch.Tensor) -> Handle[torch.Tensor]:
    return Handle(pending, lambda _: output)


def _overwrites(pending: Pending, tensor: torch.Tensor, work: torch.Tensor) -> Handle[torch.Tensor]:
    """A handle whose output is the user's tensor, with the result in it."""

    def finish(_: object) -> torch.Tensor:
        _overwrite(tensor, work)
        return tensor

    return Handle(pending, finish)


def _overwrite(tensor: torch.Tensor, work: torch.Tensor) -> None:
    """tensor <- work, which may be the tensor itself, with the result in it."""
    if work is not tensor:
        tensor.detach().copy_(work)
    elif not tensor.is_inference():
        torch.autograd.graph.increment_version(tensor)  # so that autograd sees that saved values are gone
