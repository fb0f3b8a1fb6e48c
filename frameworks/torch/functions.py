"""Giving every rank the root's state at the start of a run, or after loading a checkpoint (Horovod's functions)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from hvd_gossip.basics import operation_name, rank
from hvd_gossip.handles import wait_for_all
from hvd_gossip.objects import allgather_object as allgather_object
from hvd_gossip.objects import broadcast_object as broadcast_object

from .arrays import is_dense
from .gather_ops import broadcast_async_
from .mixing import mixing_strategies


def broadcast_parameters(params: Mapping[str, Any] | Iterable[Any], root_rank: int) -> None:
    """Overwrites tensors with the root's: `model.state_dict()`, `model.named_parameters()` or `model.parameters()`.

    Args:
        params: a mapping of names to tensors, or an iterable of (name, tensor) or of tensors. None in place of a tensor
            is passed over.
        root_rank: whose values.

    Raises:
        ValueError: something else than tensors. HorovodInternalError: types or shapes differ between ranks.
    """
    named = _named_tensors(params)
    tensors = [tensor for _, tensor in named]
    with ExitStack() as stack:
        for strategy in mixing_strategies():
            if any(strategy.shares_memory(tensor) for tensor in tensors):
                stack.enter_context(strategy.paused())
        handles = [broadcast_async_(tensor, root_rank, name) for name, tensor in named]
        wait_for_all(handles)


def broadcast_optimizer_state(
    optimizer: torch.optim.Optimizer, root_rank: int, model: torch.nn.Module | None = None
) -> None:
    """Overwrites an optimizer's state and options (learning rate...) with the root's. Works for every torch optimizer.

    Args:
        optimizer: a torch optimizer or what `DistributedOptimizer` made of one; parameter groups alike on all ranks.
        root_rank: whose state.
        model: not needed here (Horovod uses it to find sparse parameters).

    Raises:
        HorovodInternalError: the ranks disagree on the root, or one failed.
    """
    name = operation_name("optimizer_state", None)
    is_root = rank() == root_rank
    state: Any = None
    tensors: list[torch.Tensor] = []
    if is_root:
        state = _map_leaves(optimizer.state_dict(), torch.Tensor, lambda tensor: _take(tensor, tensors))
    state = broadcast_object(state, root_rank, name)
    if not is_root:
        state = _map_leaves(state, _Shape, lambda shape: _make(shape, tensors))
    handles = [broadcast_async_(tensor, root_rank, f"{name}.{i}") for i, tensor in enumerate(tensors)]
    wait_for_all(handles)
    if not is_root:
        optimizer.load_state_dict(state)


class _Shape(NamedTuple):
    """Stands for a tensor of the root's state."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str


def _take(tensor: torch.Tensor, tensors: list[torch.Tensor]) -> _Shape:
    tensors.append(tensor)
    stride = tensor.stride() if is_dense(tensor) else torch.empty_like(tensor).stride()
    return _Shape(tuple(tensor.shape), tuple(stride), tensor.dtype, tensor.device.type)


def _make(shape: _Shape, tensors: list[torch.Tensor]) -> torch.Tensor:
    tensor = torch.empty_strided(shape.size, shape.stride, dtype=shape.dtype, device=shape.device)
    tensors.append(tensor)
    return tensor


def _map_leaves(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Nested dicts, lists and tuples with every instance of `kind` changed, in the order in which they come."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_leaves(item, kind, change) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_map_leaves(item, kind, change) for item in value)
    return value


def _named_tensors(params: object) -> list[tuple[str | None, torch.Tensor]]:
    if not isinstance(params, Iterable) or isinstance(params, (str, torch.Tensor)):
        raise ValueError(f"invalid params of type: {type(params)}")
    items = params.items() if isinstance(params, Mapping) else params
    named = [item if isinstance(item, tuple) else (None, item) for item in items]
    for name, tensor in named:
        if tensor is not None and not isinstance(tensor, torch.Tensor):
            raise ValueError(f"invalid params: {name or 'an entry'} is a {type(tensor).__name__}, not a tensor")
    return [(name, tensor) for name, tensor in named if tensor is not None]
