"""Torch tensors as NumPy or CuPy arrays that share their memory, and back.

The only file of the front end that knows dtypes, devices and streams. What becomes of an array on a GPU is ordered by CuPy's
current stream, so arrays are handed to the runtime inside `ordered(device)`, where that is the stream that torch works on.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import ml_dtypes
import numpy as np
import torch

from hvd_gossip.buffers.cuda import borrowed_stream

Array = Any
"""A NumPy or CuPy array."""

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_SUPPORTED = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
)  # fmt: skip
_NOTHING_TO_DO = contextlib.nullcontext()
HUGE_FROM = 1 << 20
"""So many bytes of an array NumPy puts into huge pages where it can."""


def as_array(tensor: torch.Tensor) -> Array:
    """The tensor's memory as an array of the same shape and dtype (bfloat16 is ml_dtypes' dtype).

    Args:
        tensor: contiguous, on the CPU or a CUDA device; whether it requires gradients does not matter.

    Raises:
        ValueError: the dtype, the layout or the device has no array to stand for it.
    """
    check_tensor(tensor)
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of strides {tensor.stride()} and shape {tuple(tensor.shape)} is not contiguous")
    return array_of(tensor)


def array_of(tensor: torch.Tensor) -> Array:
    """`as_array` of a tensor that `contiguous` has given: it is not looked at again."""
    plain = tensor.detach() if tensor.requires_grad else tensor
    half = plain.dtype is torch.bfloat16
    if half:
        plain = plain.view(torch.int16)
    array = plain.numpy() if plain.is_cpu else _cupy().asarray(plain)
    return array.view(_BFLOAT16) if half else array


def as_tensor(array: Array) -> torch.Tensor:
    """The array's memory as a tensor: the inverse of `as_array`."""
    half = array.dtype == _BFLOAT16
    if half:
        array = array.view(np.int16)
    on_cpu = isinstance(array, np.ndarray)
    tensor = torch.from_numpy(array) if on_cpu else torch.as_tensor(array, device=f"cuda:{array.device.id}")
    return tensor.view(torch.bfloat16) if half else tensor


def copy_for_result(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy of the tensor, to be reduced in place."""
    return empty_for_result(tensor).copy_(tensor.detach())


def empty_for_result(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor of the same shape, type and device, whose elements are not set.

    On the CPU a large one's memory is NumPy's, which asks for huge pages: far fewer page faults than a fresh tensor of
    torch's.
    """
    if tensor.device.type != "cpu" or tensor.nbytes < HUGE_FROM:
        return torch.empty_like(tensor, requires_grad=False, memory_format=torch.contiguous_format)
    return as_tensor(np.empty_like(as_array(tensor)))


def check_tensor(tensor: torch.Tensor) -> None:
    """Raises ValueError if the tensor's dtype, layout or device cannot be communicated."""
    if tensor.layout != torch.strided:
        raise ValueError(f"tensors of layout {tensor.layout} cannot be communicated: convert with .to_dense()")
    if tensor.dtype not in _SUPPORTED:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _SUPPORTED)
        raise ValueError(f"tensors of type {tensor.dtype} are not supported; supported: {names}")
    if not (tensor.is_cpu or tensor.is_cuda):
        raise ValueError(f"tensors on device {tensor.device} are not supported: move them to the CPU or a CUDA device")


def contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or a contiguous copy of it.

    Raises:
        TypeError: no tensor. ValueError: it cannot be communicated.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"expected a torch.Tensor, not {type(tensor).__name__}")
    check_tensor(tensor)
    return tensor if tensor.is_contiguous() else tensor.detach().contiguous()


def stream_of(device: torch.device) -> Callable[[], int] | None:
    """What gives the raw cudaStream_t that torch works on now; None on the CPU."""
    if device.type != "cuda":
        return None
    return lambda: int(torch.cuda.current_stream(device).cuda_stream)


def ordered(device: torch.device) -> AbstractContextManager[object]:
    """Context in which CuPy's current device and stream are torch's; nothing to do on the CPU."""
    if device.type != "cuda":
        return _NOTHING_TO_DO
    cupy = _cupy()
    stack = contextlib.ExitStack()
    stack.enter_context(cupy.cuda.Device(device.index))
    stack.enter_context(borrowed_stream(cupy, torch.cuda.current_stream(device).cuda_stream, device.index))
    return stack


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill one stretch of memory, each once, in whatever order of dimensions (channels_last...)."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def memory_of(tensor: torch.Tensor) -> torch.Tensor:
    """A dense tensor's elements as a 1-D view, in the order in which they lie in memory."""
    return tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def _cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise ImportError(
            "tensors on a CUDA device need CuPy: pip install 'hvd-gossip[cuda13]' (or cuda12, as your driver has it)"
        ) from error
