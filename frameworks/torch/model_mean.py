"""`consensus` and `consensus_distance`: what all workers' models are together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from hvd_gossip import runtime
from hvd_gossip.basics import operation_name, process_set_id
from hvd_gossip.collectives import Average

from .mixing import ParameterMixing, mixing_strategies
from .submit import reduce_into

AT_A_TIME = 16
"""Tensors that are averaged side by side."""


@contextmanager
def consensus(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the model is the exact average over all workers; after, each worker's own again, bit for bit.

    For evaluation and checkpoints. Parameters and floating buffers (BatchNorm's statistics) are averaged; with
    `allreduce`, where parameters are equal already, that matters for the buffers. A collective: every rank enters, at a
    place of its own choosing. (Not in Horovod.)

    Args:
        model: its trainable parameters may belong to one distributed optimizer, several, or none.

    Raises:
        NotInitializedError: before `init()`. HorovodInternalError: a worker failed meanwhile. RuntimeError: inside
        another `consensus()` of the same parameters.
    """
    runtime.current()
    mixing, others = _divide(model, [*model.parameters(), *model.buffers()])
    with ExitStack() as stack:
        for strategy in mixing:
            stack.enter_context(strategy.consensus())
        own = [tensor.detach().clone() for tensor in others]
        stack.callback(_restore, others, own)
        _average(others, _process_set_of(mixing))
        yield


def consensus_distance(model: torch.nn.Module) -> float:
    """How far apart the workers' models are: sqrt of the mean over workers of ||x_i - mean||^2 over all parameters.

    A collective, as `consensus`; every rank gets the same value. (Not in Horovod.)
    """
    runtime.current()
    mixing, others = _divide(model, list(model.parameters()))
    squared = sum(strategy.consensus_distance() ** 2 for strategy in mixing)
    means = [tensor.detach().clone() for tensor in others]
    members = _process_set_of(mixing)
    _average(means, members)
    own = sum(float((a.detach().double() - b.double()).square().sum()) for a, b in zip(others, means, strict=True))
    total = torch.tensor([own], dtype=torch.float64)
    _average([total], members)
    return math.sqrt(squared + total.item())


def _divide(
    model: torch.nn.Module, tensors: Sequence[torch.Tensor]
) -> tuple[list[ParameterMixing], list[torch.Tensor]]:
    """The strategies that mix some of the model's parameters, and the floating tensors that none of them holds."""
    parameters = list(model.parameters())
    mixing = [strategy for strategy in mixing_strategies() if any(strategy.holds(p) for p in parameters)]
    others = [
        tensor
        for tensor in tensors
        if tensor.is_floating_point() and tensor.numel() and not any(strategy.holds(tensor) for strategy in mixing)
    ]
    return mixing, others


def _process_set_of(mixing: Sequence[ParameterMixing]) -> int:
    """The number of the process set in which the model is kept together."""
    return process_set_id(mixing[0].options.process_set) if mixing else 0


def _average(tensors: Sequence[torch.Tensor], process_set: int) -> None:
    """Replaces the tensors by their mean over the workers that have not departed.

    In float64, so that the mean of equal values is that value, and a few at a time, so that this takes little memory.
    """
    for start in range(0, len(tensors), AT_A_TIME):
        chosen = tensors[start : start + AT_A_TIME]
        sums = [
            tensor.detach().to(torch.float64, copy=True, memory_format=torch.contiguous_format) for tensor in chosen
        ]
        more = {"live_only": True, "process_set": process_set}
        handles = [
            reduce_into(wide, wide, operation_name("consensus", None, process_set), Average, **more) for wide in sums
        ]
        for tensor, handle in zip(chosen, handles, strict=True):
            tensor.detach().copy_(handle.wait())


def _restore(tensors: Sequence[torch.Tensor], own: Sequence[torch.Tensor]) -> None:
    for tensor, value in zip(tensors, own, strict=True):
        tensor.detach().copy_(value)
