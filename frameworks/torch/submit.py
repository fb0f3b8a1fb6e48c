"""Tensors to the runtime: requests under full names, on contiguous tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from hvd_gossip import runtime
from hvd_gossip.collectives import Request

from .arrays import as_array, as_tensor, ordered
from .handles import Handle


class Gathered(NamedTuple):
    """All ranks' tensors joined, and the first dimension of each one's."""

    output: torch.Tensor
    sizes: tuple[int, ...]


def reduce_into(
    source: torch.Tensor,
    output: torch.Tensor,
    name: str,
    op: int,
    prescale: float = 1.0,
    postscale: float = 1.0,
    **more: Any,
) -> Handle[torch.Tensor]:
    """Submits an allreduce of contiguous tensors (`output` may be `source`) under its full name."""
    request = {"kind": "allreduce", "op": op, "prescale": prescale, "postscale": postscale, **more}
    return _submit(source, output, name, request)


def broadcast_into(source: torch.Tensor, output: torch.Tensor, root_rank: int, name: str) -> Handle[torch.Tensor]:
    """Submits a broadcast of contiguous tensors (`output` may be `source`) under its full name."""
    return _submit(source, output, name, {"kind": "broadcast", "root_rank": root_rank})


def gather(source: torch.Tensor, name: str) -> Handle[Gathered]:
    """Submits an allgather of a contiguous tensor under its full name."""
    with ordered(source.device):
        pending = runtime.current().submit(Request(name=name, kind="allgather", array=as_array(source)))
    return Handle(pending, lambda result: Gathered(as_tensor(result.output), result.sizes))


def _submit(source: torch.Tensor, output: torch.Tensor, name: str, request: dict[str, Any]) -> Handle[torch.Tensor]:
    with ordered(source.device):
        array = as_array(source)
        into = array if output is source else as_array(output)
        pending = runtime.current().submit(Request(name=name, array=array, output=into, **request))
    return Handle(pending, lambda _: output)
