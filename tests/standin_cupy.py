"""A stand-in for CuPy that executes nothing until its streams are looked at, or in whichever order a test asks for.

Kernels and copies are a list of work on the stream of the thread that enqueues them. So what is sent before it was computed,
received into while it is still to be read, or used on another stream that has not been told to wait, holds the wrong numbers.
What only a device can show is listed in docs/gpu-status.md.

It has no more than CuPy: its arrays are not NumPy's, no NumPy array takes part in an operation with one, NumPy does not make
one of its own of it, flags know no `writeable`, memory that is freed goes to the next array on the stream it was taken from.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.standin_streams import MACHINE, BaseStream, ExternalStream, Queue, Stream, running

RUBBISH = 77


class Allocation:
    """Memory of the current stream's, which goes back there when nobody has it any more: without waiting for anything."""

    def __init__(self, nbytes: int) -> None:
        self._key = running().stream.queue, nbytes
        free = MACHINE.free.setdefault(self._key, [])
        self.memory = free.pop() if free else np.full(nbytes, RUBBISH, np.uint8)

    def __del__(self) -> None:
        MACHINE.free.setdefault(self._key, []).append(self.memory)


class DeviceArray:
    """An array all of whose arithmetic and copies are enqueued on the current stream.

    Attributes:
        memory: for whoever stands outside of the device: what the array holds now.
    """

    device = SimpleNamespace(id=0)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, memory: np.ndarray, owner: object = None) -> None:
        self.memory = memory
        self._owner = owner
        self.dtype, self.shape, self.ndim = memory.dtype, memory.shape, memory.ndim
        self.size, self.nbytes, self.itemsize = memory.size, memory.nbytes, memory.itemsize
        self.flags = SimpleNamespace(c_contiguous=memory.flags.c_contiguous)

    def __len__(self) -> int:
        return len(self.memory)

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        """For NumPy's scalars on the left of an operator."""
        assert method == "__call__"
        return enqueue(ufunc, *inputs, out=None if out is None else out[0], **options)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        raise TypeError(f"{function.__name__} is NumPy's, and was given a device array")

    def __getitem__(self, key: Any) -> DeviceArray:
        if isinstance(key, DeviceArray):
            return enqueue(lambda array, index: array[index], self, key, like=np.empty(key.shape, self.dtype))
        keys = key if isinstance(key, tuple) else (key,)
        return DeviceArray(self.memory[keys if ... in keys else (*keys, ...)], self._owner)

    def __setitem__(self, key: Any, value: Any) -> None:
        target, where, source = self.memory, plain(key), plain(value)
        current_queue().put(lambda: target.__setitem__(where, source))

    def reshape(self, *shape: Any) -> DeviceArray:
        return DeviceArray(self.memory.reshape(*shape), self._owner)

    def view(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self.memory.view(dtype), self._owner)

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        if not copy and self.dtype == dtype:
            return self
        return enqueue(lambda array: array.astype(dtype), self)

    def copy(self) -> DeviceArray:
        return enqueue(np.copy, self)

    def fill(self, value: Any) -> None:
        self[...] = value

    def get(self, stream: BaseStream | None = None, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        source, queue = self.memory, (stream or running().stream).queue
        result = np.empty(self.shape, self.dtype) if out is None else out
        queue.put(lambda: np.copyto(result, source))
        if blocking:
            queue.run(queue.enqueued)
        return result

    def set(self, array: np.ndarray, stream: BaseStream | None = None) -> None:
        target = self.memory
        (stream or running().stream).queue.put(lambda: np.copyto(target, array))

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())


def current_queue() -> Queue:
    return running().stream.queue


def plain(argument: Any) -> Any:
    """The memory behind device arrays, as deep as they lie in lists.

    Raises:
        TypeError: there is a NumPy array among them.
    """
    if isinstance(argument, list | tuple):
        return type(argument)(map(plain, argument))
    if isinstance(argument, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return argument.memory if isinstance(argument, DeviceArray) else argument


def new(shape: Any, dtype: Any) -> DeviceArray:
    """Device memory with rubbish in it, or with what was there before."""
    dtype, shape = np.dtype(dtype), (shape,) if isinstance(shape, int) else tuple(shape)
    owner = Allocation(math.prod(shape) * dtype.itemsize)
    return DeviceArray(owner.memory.view(dtype).reshape(shape), owner)


def enqueue(
    function: Callable[..., Any], *arguments: Any, out: DeviceArray | None = None, like: Any = None, **options: Any
) -> DeviceArray:
    """What `function` will give, in `out` or in new memory; `like` has its shape and type, if rubbish must not be tried."""
    inputs = plain(arguments)
    if out is not None:
        target = out.memory
        current_queue().put(lambda: function(*inputs, out=target, **options))
        return out
    if like is None:
        with np.errstate(all="ignore"):
            like = np.asarray(function(*inputs, **options))
    result = new(like.shape, like.dtype)
    memory = result.memory
    current_queue().put(lambda: np.copyto(memory, function(*inputs, **options)))
    return result


def asarray(values: Any) -> DeviceArray:
    """On the device; a NumPy array has been read when this returns."""
    if isinstance(values, DeviceArray):
        return values
    values = np.array(values)
    result = new(values.shape, values.dtype)
    result.set(values)
    return result


def zeros(shape: Any, dtype: Any) -> DeviceArray:
    result = new(shape, dtype)
    result.fill(0)
    return result


class Device:
    def __init__(self, number: int) -> None:
        self._number = number

    def use(self) -> None:
        MACHINE.used.append(self._number)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _operator(function: Any, reverse: bool = False) -> Any:
    def operate(self: DeviceArray, other: Any) -> DeviceArray:
        return enqueue(function, other, self) if reverse else enqueue(function, self, other)

    return operate


def _in_place(ufunc: np.ufunc) -> Any:
    return lambda self, other: enqueue(ufunc, self, other, out=self)


def _function(function: Any) -> Any:
    return lambda *arguments, **options: enqueue(function, *arguments, **options)


_BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "and": np.bitwise_and, "or": np.bitwise_or, "lshift": np.left_shift, "rshift": np.right_shift,
}  # fmt: skip
for _name, _ufunc in _BINARY.items():
    setattr(DeviceArray, f"__{_name}__", _operator(_ufunc))
    setattr(DeviceArray, f"__r{_name}__", _operator(_ufunc, reverse=True))
    setattr(DeviceArray, f"__i{_name}__", _in_place(_ufunc))
for _name in ("lt", "le", "eq", "ne", "gt", "ge", "matmul"):
    setattr(DeviceArray, f"__{_name}__", _operator(getattr(operator, _name)))
for _name in ("neg", "invert", "abs"):
    setattr(DeviceArray, f"__{_name}__", _function(getattr(operator, _name)))
for _name in ("any", "all", "max", "sum", "mean"):
    setattr(DeviceArray, _name, _function(getattr(np, _name)))

_KERNELS = """
    add subtract multiply divide floor_divide minimum maximum isfinite floor where dot stack concatenate repeat packbits
    unpackbits argpartition any
"""
CUPY = SimpleNamespace(
    ndarray=DeviceArray,
    cuda=SimpleNamespace(
        Device=Device,
        Stream=Stream,
        ExternalStream=ExternalStream,
        alloc_pinned_memory=lambda size: bytearray(b"\xee" * size),
        get_current_stream=lambda: running().stream,
    ),
    random=SimpleNamespace(
        default_rng=lambda seed: SimpleNamespace(
            random=lambda shape, dtype: asarray(np.random.default_rng(seed).random(shape, dtype))
        )
    ),
    asarray=asarray,
    empty=new,
    zeros=zeros,
    empty_like=lambda array: new(array.shape, array.dtype),
    zeros_like=lambda array: zeros(array.shape, array.dtype),
    **{name: _function(getattr(np, name)) for name in _KERNELS.split()},
)
"""The module."""


def install(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """Puts the stand-in, as new, where CuPy would be.

    Args:
        options: of `Machine.clear`.
    """
    MACHINE.clear(**options)
    monkeypatch.setitem(sys.modules, "cupy", CUPY)
    return CUPY
