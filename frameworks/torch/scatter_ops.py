"""Alltoall and reducescatter (Horovod's names, arguments and defaults). See reduce_ops.py for what all operations share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.calls import Call, make_call
from hvd_gossip.collectives import Average, ReduceOp

from . import autograd
from .compression import Compression, Compressor
from .handles import Handle, together
from .submit import into_new, new_outputs


def alltoall_async(
    tensor: torch.Tensor,
    splits: torch.Tensor | Sequence[int] | None = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Handle[tuple[torch.Tensor, torch.Tensor]]:
    """Starts exchanging slices; arguments as for `alltoall`. Gradients do not flow through it.

    Returns:
        A handle whose output is a pair, whether splits were given or not: what was received, and the received splits.
    """
    (handle,) = into_new(*_exchange(tensor, splits, name, process_set))
    return Handle(handle, lambda received: (received.output, _like(splits, received.sizes)))


def alltoall(
    tensor: torch.Tensor,
    splits: torch.Tensor | Sequence[int] | None = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Any:
    """Sends a slice of a tensor to every rank, and joins the slices received, in the order of ranks.

    Differentiable: the gradients of the slices go back to where the slices came from.

    Args:
        tensor: at least 1-D; first dimensions may differ between ranks, the others may not.
        splits: integers: how many rows go to each rank, in their order. Their sum may be less than the rows there are: the
            rest is not sent. None: equal slices, so the rows must be a multiple of the number of ranks.
        name: names the operation.
        process_set: the ranks that take part.

    Returns:
        Without splits, a tensor. With splits a pair: the tensor, and the number of rows received from each rank, of the
        type and on the device of `splits` if that is a tensor, else int32.

    Raises:
        ValueError: splits that are not one number a rank, or exceed the rows; no splits and rows that cannot be divided.
    """
    output, received = autograd.alltoall(*_exchange(tensor, splits, name, process_set))
    return output if splits is None else (output, _like(splits, received.tolist()))


def reducescatter_async(
    tensor: torch.Tensor,
    name: str | None = None,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> Handle[torch.Tensor]:
    """Starts reducing and scattering a tensor; arguments as for `reducescatter`. Gradients do not flow through it."""
    return new_outputs(_call(name, op, process_set, prescale_factor, postscale_factor), [tensor])[0]


def reducescatter(
    tensor: torch.Tensor,
    name: str | None = None,
    compression: type[Compressor] = Compression.none,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> torch.Tensor:
    """This rank's rows of the reduction of a tensor over all ranks.

    Differentiable: the gradient joins those of all ranks' rows, times their number for op=Sum (Horovod's rule).

    Args:
        tensor: at least 1-D, of the same type and shape on every rank; not changed.
        name: names the operation.
        compression: what the tensor is turned into on its way.
        op: Average or Sum.
        process_set: the ranks that take part.
        prescale_factor, postscale_factor: factors before and after the reduction.

    Returns:
        A tensor of the same type, with the rows divided among the ranks; the first (rows mod ranks) get one more.
    """
    return _compressed(_call(name, op, process_set, prescale_factor, postscale_factor), [tensor], compression)[0]


def grouped_reducescatter_async(
    tensors: Sequence[torch.Tensor],
    name: str | None = None,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> Handle[list[torch.Tensor]]:
    """Starts reducing and scattering several tensors; arguments as for `grouped_reducescatter`. Gradients do not flow."""
    call = _call(name, op, process_set, prescale_factor, postscale_factor, grouped=True)
    return together(new_outputs(call, tensors))


def grouped_reducescatter(
    tensors: Sequence[torch.Tensor],
    name: str | None = None,
    compression: type[Compressor] = Compression.none,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> list[torch.Tensor]:
    """What `reducescatter` gives for each of several tensors, carried out together: all or none. Differentiable.

    Args:
        tensors: as many on every rank.

    The other arguments are those of `reducescatter`.
    """
    call = _call(name, op, process_set, prescale_factor, postscale_factor, grouped=True)
    return _compressed(call, tensors, compression)


def _call(
    name: str | None, op: int, process_set: ProcessSet, prescale: float, postscale: float, grouped: bool = False
) -> Call:
    fields = {"op": ReduceOp(op), "prescale": prescale, "postscale": postscale}
    return make_call("reducescatter", name, process_set, grouped=grouped, **fields)


def _compressed(call: Call, tensors: Sequence[torch.Tensor], compression: type[Compressor]) -> list[torch.Tensor]:
    pairs = [compression.compress(tensor) for tensor in tensors]
    scattered = autograd.reducescatter(call, [tensor for tensor, _ in pairs])
    return [compression.decompress(tensor, ctx) for tensor, (_, ctx) in zip(scattered, pairs, strict=True)]


def _exchange(
    tensor: torch.Tensor, splits: torch.Tensor | Sequence[int] | None, name: str | None, process_set: ProcessSet
) -> tuple[Call, list[torch.Tensor]]:
    """An alltoall's call, and what is sent: splits may leave some rows out."""
    call = make_call("alltoall", name, process_set)
    sizes = _split_sizes(splits)
    rows = sum(sizes)
    if sizes and tensor.dim() and rows < tensor.shape[0] and min(sizes) >= 0:
        tensor = tensor[:rows]
    return replace(call, fields={**call.fields, "splits": sizes}), [tensor]


def _split_sizes(splits: torch.Tensor | Sequence[int] | None) -> tuple[int, ...]:
    """Rows for each rank; () for equal slices.

    Raises:
        ValueError: not a vector of integers.
    """
    if splits is None:
        return ()
    splits = torch.as_tensor(splits, dtype=None if len(splits) else torch.int64)
    if splits.dim() != 1:
        raise ValueError(f"alltoall expects a 1D splits tensor, not one of shape {tuple(splits.shape)}")
    if splits.is_floating_point() or splits.is_complex() or splits.dtype == torch.bool:
        raise ValueError(f"alltoall expects splits to contain integer elements, not {splits.dtype}")
    return tuple(splits.tolist())


def _like(splits: torch.Tensor | Sequence[int] | None, sizes: Sequence[int]) -> torch.Tensor:
    if isinstance(splits, torch.Tensor):
        return torch.tensor(sizes, dtype=splits.dtype, device=splits.device)
    return torch.tensor(sizes, dtype=torch.int32)
