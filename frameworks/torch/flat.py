"""Flat buffers, one a (dtype, device), with parameters as views of them.

What gossip exchanges is the flat buffer; what the model and the optimizer work on are the views, so nothing is copied in
a step. A parameter's strides are kept (channels_last stays channels_last).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .arrays import Array, as_array, check_tensor, is_dense

ALIGNMENT = 64
"""Every parameter starts at a multiple of so many bytes, as freshly allocated tensors do (vectorized kernels want it)."""

Named = Sequence[tuple[str, torch.Tensor]]


@dataclass
class _Place:
    """Where a parameter lives: the view of the flat buffer that its `data` is."""

    parameter: torch.Tensor
    view: torch.Tensor
    address: int


class FlatParameters:
    """Moves parameters into flat buffers. Their values stay; `parameter.data` is re-pointed.

    Args:
        named: names (for messages) and parameters: floating, strided, on the CPU or CUDA devices; empty ones are left
            alone.

    Raises:
        ValueError: a parameter is not of that kind, or two parameters overlap in memory.

    Attributes:
        buffers: 1-D tensors, in the order in which their (dtype, device) first appears.
    """

    def __init__(self, named: Named) -> None:
        _check(named)
        groups: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
        for _, parameter in named:
            if parameter.numel():
                groups.setdefault((parameter.dtype, parameter.device), []).append(parameter)
        self._places: list[_Place] = []
        self.buffers = [self._flatten(*key, members) for key, members in groups.items()]
        self._held = {id(parameter): parameter for _, parameter in named}

    def _flatten(self, dtype: torch.dtype, device: torch.device, members: Sequence[torch.Tensor]) -> torch.Tensor:
        step = max(1, ALIGNMENT // dtype.itemsize)
        lengths = [-(-p.numel() // step) * step for p in members]
        buffer = torch.empty(sum(lengths), dtype=dtype, device=device)
        start = 0
        for parameter, length in zip(members, lengths, strict=True):
            strides = parameter.stride() if is_dense(parameter) else _contiguous_strides(parameter.shape)
            view = buffer.as_strided(parameter.shape, strides, start)
            buffer[start + parameter.numel() : start + length].zero_()
            self._places.append(_Place(parameter, view, view.data_ptr()))
            _move(parameter, view)
            start += length
        return buffer

    def arrays(self) -> list[Array]:
        """The buffers as 1-D arrays that share their memory."""
        return [as_array(buffer) for buffer in self.buffers]

    def holds(self, parameter: torch.Tensor) -> bool:
        """Whether this very parameter was given."""
        return id(parameter) in self._held

    def shares_memory(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor lies in one of the buffers."""
        address = tensor.untyped_storage().data_ptr()
        return any(address == buffer.untyped_storage().data_ptr() for buffer in self.buffers)

    def adopt(self) -> bool:
        """Takes back parameters whose `data` were pointed elsewhere: their new values are copied into the buffers.

        Costs one comparison of addresses a parameter when nothing changed.

        Returns:
            False if a parameter changed its type, device or shape, so that the buffers cannot hold it any more.
        """
        moved = [place for place in self._places if place.parameter.data_ptr() != place.address]
        if any(_kind(place.parameter) != _kind(place.view) for place in moved):
            return False
        for place in moved:
            _move(place.parameter, place.view)
        return True


def _move(parameter: torch.Tensor, view: torch.Tensor) -> None:
    view.copy_(parameter.detach())
    parameter.data = view


def _kind(tensor: torch.Tensor) -> tuple[torch.dtype, torch.device, torch.Size]:
    return tensor.dtype, tensor.device, tensor.shape


def _contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()


def _check(named: Named) -> None:
    for name, parameter in named:
        if torch.nn.parameter.is_lazy(parameter):
            raise ValueError(f"parameter {name} of a lazy module has no shape yet: run one forward pass first")
        try:
            check_tensor(parameter)
        except ValueError as error:
            raise ValueError(f"parameter {name}: {error}") from error
        if not parameter.is_floating_point():
            raise ValueError(f"parameter {name} of type {parameter.dtype} cannot be averaged")
    _check_overlaps(named)


def _check_overlaps(named: Named) -> None:
    """Two Parameters on the same memory would come apart. (Of two spans that overlap, two adjacent ones do.)"""
    spans = sorted((str(p.device), p.data_ptr(), p.nbytes, name) for name, p in named if p.numel() and is_dense(p))
    for (device, start, size, one), (other_device, other_start, _, other) in itertools.pairwise(spans):
        if device == other_device and other_start < start + size:
            raise ValueError(
                f"parameters {one} and {other} share memory: to tie weights, use one Parameter in both places"
            )
