"""Tensors that hold values as NumPy arrays, and back, without a copy where TensorFlow allows it.

A tensor's memory may be looked at through the buffer protocol. An array becomes a tensor by DLPack if it is aligned as
TensorFlow's own are; other memory would end the process as soon as a variable took it over. A tensor made so keeps the array
alive, and nobody else writes there: arrays are allocated for one result each.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf

Array = np.ndarray[Any, np.dtype[Any]]

ALIGNMENT = 64
"""Of TensorFlow's own tensors, in bytes."""
WORTH_SHARING = 1 << 14
"""Bytes from which sharing memory is faster than copying it."""
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def as_array(tensor: Any) -> Array:
    """An eager tensor's values, not to be written to: its memory if that is large and lies on the host, else a copy."""
    if tensor.dtype == tf.bfloat16:
        return as_array(tf.bitcast(tensor, tf.uint16)).view(_BFLOAT16)
    if tensor.shape.num_elements() * tensor.dtype.size < WORTH_SHARING or "CPU" not in tensor.device:
        return np.asarray(tensor.numpy())
    return np.asarray(memoryview(tensor))


def as_tensor(array: Array) -> Any:
    """An eager tensor of an array that nobody writes to any more: in the array's memory if that is aligned."""
    if array.dtype == _BFLOAT16:
        return tf.bitcast(as_tensor(array.view(np.uint16)), tf.bfloat16)
    if is_aligned(array) and array.flags.writeable and array.nbytes >= WORTH_SHARING:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array)


def is_aligned(array: Array) -> bool:
    """Whether TensorFlow can take the array's memory over."""
    return (array.ctypes.data % ALIGNMENT == 0 or not array.size) and bool(array.flags.c_contiguous)


def aligned_like(array: Array) -> Array:
    """An uninitialized array of the same shape and type, which TensorFlow can take over."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)


def check_type(tensor: Any) -> None:
    """Raises ValueError if the tensor's elements cannot be communicated: strings, resources, quantized numbers..."""
    dtype = tensor.dtype
    if not (dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex) or dtype.is_quantized:
        raise ValueError(f"tensors of type {dtype.name} are not supported, only numbers and bool")
