"""Gradients through collective operations (Horovod's rules).

The backward pass communicates under the forward operation's name with ".grad" after it; like forward, it must run on all
ranks of the process set. Operations that have a grouped form are written for several tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from hvd_gossip import runtime
from hvd_gossip.calls import Call, averaging, backward_of, check_linear
from hvd_gossip.collectives import Sum
from hvd_gossip.handles import wait_for_all

from .submit import Received, group_into_copies, into_copies, into_new

Tensors = tuple[torch.Tensor, ...]


class Allreduce(torch.autograd.Function):
    """y = reduce_j(x_j); the gradient of x is the same reduction of the gradients of y."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: torch.Tensor) -> Tensors:
        ctx.call = call
        if call.grouped:
            return tuple(group_into_copies(call, tensors).wait())
        return tuple(wait_for_all(into_copies(call, tensors)))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return None, *allreduce(backward_of(ctx.call), gradients)


class Allgather(torch.autograd.Function):
    """y = concatenation of all x_j; the gradient of x is this rank's part of the average of the gradients of y."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: torch.Tensor) -> Tensors:
        results = wait_for_all(into_new(call, tensors))
        ctx.call = call
        ctx.parts = [_own_part(result) for result in results]
        return tuple([result.output for result in results])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        averages = allreduce(averaging(ctx.call), gradients)
        parts = zip(averages, ctx.parts, strict=True)
        return None, *(average.narrow(0, start, length) for average, (start, length) in parts)


class Broadcast(torch.autograd.Function):
    """y = x_root; the gradient of x is the average of the gradients of y on the root, zero elsewhere."""

    @staticmethod
    def forward(ctx: Any, call: Call, tensor: torch.Tensor) -> torch.Tensor:
        ctx.call = call
        return into_copies(call, [tensor])[0].wait()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (average,) = allreduce(averaging(ctx.call), [gradient])
        is_root = runtime.current().world.rank == ctx.call.fields["root_rank"]
        return None, average if is_root else torch.zeros_like(average)


class Alltoall(torch.autograd.Function):
    """y = all parts x_j for this rank, joined; the gradients of the parts go back to where the parts came from."""

    @staticmethod
    def forward(ctx: Any, call: Call, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result = into_new(call, [tensor])[0].wait()
        received = torch.tensor(result.sizes, dtype=torch.int64)
        ctx.call, ctx.sizes = call, result.sizes
        ctx.mark_non_differentiable(received)
        return result.output, received

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: object) -> Any:
        return None, alltoall(ctx.call.backward("alltoall", splits=ctx.sizes), [gradient])[0]


class Reducescatter(torch.autograd.Function):
    """y = this rank's rows of reduce_j(x_j); the gradient of x is all ranks' gradients of y, joined; times their number
    for op=Sum."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: torch.Tensor) -> Tensors:
        results = wait_for_all(into_new(call, tensors))
        fields = call.fields
        ctx.call, ctx.factor = call, fields["prescale"] * fields["postscale"]
        if fields["op"] == Sum and results:
            ctx.factor *= len(results[0].ranks)
        return tuple([result.output for result in results])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        check_linear(ctx.call)
        return None, *allgather(ctx.call.backward("allgather"), [gradient * ctx.factor for gradient in gradients])


def allreduce(call: Call, tensors: Sequence[torch.Tensor]) -> Tensors:
    """The differentiable allreduce."""
    return _apply(Allreduce, call, tensors)


def allgather(call: Call, tensors: Sequence[torch.Tensor]) -> Tensors:
    """The differentiable allgather."""
    return _apply(Allgather, call, tensors)


def reducescatter(call: Call, tensors: Sequence[torch.Tensor]) -> Tensors:
    """The differentiable reducescatter."""
    return _apply(Reducescatter, call, tensors)


def broadcast(call: Call, tensor: torch.Tensor) -> torch.Tensor:
    """The differentiable broadcast."""
    return cast(torch.Tensor, Broadcast.apply(call, tensor))  # type: ignore[no-untyped-call]


def alltoall(call: Call, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The differentiable alltoall of one tensor, and the number of rows that came from each rank."""
    return cast(tuple[torch.Tensor, torch.Tensor], Alltoall.apply(call, *tensors))  # type: ignore[no-untyped-call]


def _apply(function: type[torch.autograd.Function], call: Call, tensors: Sequence[torch.Tensor]) -> Tensors:
    return cast(Tensors, function.apply(call, *tensors)) if tensors else ()


def _own_part(result: Received) -> tuple[int, int]:
    """Where this rank's rows begin in the output, and how many they are."""
    position = result.ranks.index(runtime.current().world.rank)
    return sum(result.sizes[:position]), result.sizes[position]
