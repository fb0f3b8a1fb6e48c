"""Gradients through collective operations (Horovod's rules).

The backward pass communicates under the forward operation's name with ".grad" after it; like forward, it must run on all
ranks.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from hvd_gossip import runtime
from hvd_gossip.collectives import Average, Sum

from .arrays import contiguous, copy_for_result
from .submit import broadcast_into, gather, reduce_into


class Allreduce(torch.autograd.Function):
    """y = reduce_j(x_j); the gradient of x is the same reduction of the gradients of y."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, name: str, op: int, prescale: float, postscale: float) -> torch.Tensor:
        ctx.arguments = name, op, prescale, postscale
        output = copy_for_result(contiguous(tensor))
        return reduce_into(output, output, name, op, prescale, postscale).wait()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        name, op, prescale, postscale = ctx.arguments
        if op not in (Average, Sum):
            raise NotImplementedError(f"allreduce {name!r}: only op=Average and op=Sum have a gradient")
        return allreduce(gradient, f"{name}.grad", op, prescale, postscale), None, None, None, None


class Allgather(torch.autograd.Function):
    """y = concatenation of all x_j; the gradient of x is this rank's part of the average of the gradients of y."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, name: str) -> torch.Tensor:
        result = gather(contiguous(tensor), name).wait()
        rank = runtime.current().world.rank
        ctx.name, ctx.start, ctx.length = name, sum(result.sizes[:rank]), result.sizes[rank]
        return result.output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        average = allreduce(gradient, f"{ctx.name}.grad", Average)
        return average.narrow(0, ctx.start, ctx.length), None


class Broadcast(torch.autograd.Function):
    """y = x_root; the gradient of x is the average of the gradients of y on the root, zero elsewhere."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, root_rank: int, name: str) -> torch.Tensor:
        ctx.name, ctx.root_rank = name, root_rank
        source = contiguous(tensor)
        return broadcast_into(source, copy_for_result(source), root_rank, name).wait()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        average = allreduce(gradient, f"{ctx.name}.grad", Average)
        return average if runtime.current().world.rank == ctx.root_rank else torch.zeros_like(average), None, None


def allreduce(tensor: torch.Tensor, name: str, op: int, prescale: float = 1.0, postscale: float = 1.0) -> torch.Tensor:
    """The differentiable allreduce under its full name."""
    return cast(torch.Tensor, Allreduce.apply(tensor, name, op, prescale, postscale))  # type: ignore[no-untyped-call]


def allgather(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """The differentiable allgather under its full name."""
    return cast(torch.Tensor, Allgather.apply(tensor, name))  # type: ignore[no-untyped-call]


def broadcast(tensor: torch.Tensor, root_rank: int, name: str) -> torch.Tensor:
    """The differentiable broadcast under its full name."""
    return cast(torch.Tensor, Broadcast.apply(tensor, root_rank, name))  # type: ignore[no-untyped-call]
