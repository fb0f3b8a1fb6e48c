"""CuPy memory: streams, events, and the way to MPI: device buffers where it is CUDA-aware, else pinned host staging.

Two streams meet here: the training thread's (the framework's) and the engine's own. What orders them are events: one that the
training thread records when a step's update is enqueued (`updated`), and two for each chunk, for its last use by either thread.
MPI knows no streams, so before a buffer is handed to it the engine's stream must have drained (`settled`, polled, not blocking).

Buffers for MPI come from plain cudaMalloc (CuPy's default pool): memory of cudaMallocAsync or cuMemCreate cannot be shared
between processes by CUDA IPC and falls back, silently, to a path a hundred times slower (docs/gpu.md).
"""

from __future__ import annotations

import ctypes
import importlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hvd_gossip.buffers.arrays import Array
from hvd_gossip.buffers.space import Guarded, HostSpace, Space
from hvd_gossip.transport.endpoint import Endpoint

log = logging.getLogger("hvd_gossip")
MPICH_CUDA = 0
"""MPIX_GPU_SUPPORT_CUDA of MPICH's mpi.h."""


class CudaSpace:
    """Memory of one CUDA device.

    Args:
        device: its number.
        direct: whether MPI takes device memory.
        training_stream: gives the raw cudaStream_t on which the framework works now; None is the default stream.
        xp: the cupy module.
    """

    def __init__(
        self, device: int, direct: bool, training_stream: Callable[[], int] | None = None, xp: Any = None
    ) -> None:
        self.direct = direct
        self._xp = xp = importlib.import_module("cupy") if xp is None else xp
        self._device = device
        self._training_stream = training_stream or (lambda: 0)
        with xp.cuda.Device(device):
            self._stream = xp.cuda.Stream(non_blocking=True)
        self._last_update: Any = None

    def zeros(self, length: int, dtype: np.dtype[Any]) -> Array:
        with self.computing():
            zeros = self._xp.zeros(length, dtype)
        self._stream.synchronize()
        return zeros

    def wire(self, length: int, dtype: np.dtype[Any]) -> Array:
        if self.direct:
            with self.computing():
                return self._xp.empty(length, dtype)
        memory = self._xp.cuda.alloc_pinned_memory(max(1, length * dtype.itemsize))
        return np.frombuffer(memory, np.uint8, length * dtype.itemsize).view(dtype)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Work on the engine's stream, after the training thread's last update."""
        with self._xp.cuda.Device(self._device), self._stream:
            if self._last_update is not None:
                self._stream.wait_event(self._last_update)
            yield

    @contextmanager
    def engine(self, chunk: Guarded) -> Iterator[None]:
        with chunk.lock, self.computing():
            self._follow(self._stream, chunk, "training")
            yield
            chunk.fences["engine"] = self._stream.record()

    @contextmanager
    def training(self, chunk: Guarded) -> Iterator[None]:
        stream = self._xp.cuda.ExternalStream(self._training_stream(), self._device)
        with chunk.lock, self._xp.cuda.Device(self._device), stream:
            self._follow(stream, chunk, "engine")
            yield
            chunk.fences["training"] = stream.record()

    def updated(self) -> None:
        stream = self._xp.cuda.ExternalStream(self._training_stream(), self._device)
        with self._xp.cuda.Device(self._device):
            self._last_update = stream.record()

    def publish(self, value: Array, wire: Array) -> None:
        with self.computing():
            if self.direct:
                wire[...] = value
            else:
                value.astype(wire.dtype, copy=False).get(stream=self._stream, out=wire, blocking=False)

    def fetch(self, wire: Array) -> Array:
        if self.direct or not isinstance(wire, np.ndarray):
            return wire
        with self.computing():
            arrived = self._xp.empty(wire.shape, wire.dtype)
            arrived.set(wire, stream=self._stream)
        return arrived

    def settled(self, endpoint: Endpoint) -> Awaitable[None]:
        with self.computing():
            done = self._stream.record()
        return endpoint.poll(lambda: bool(done.done), "the device to finish this worker's own kernels")

    @staticmethod
    def _follow(stream: Any, chunk: Guarded, other: str) -> None:
        event = chunk.fences.get(other)
        if event is not None:
            stream.wait_event(event)


def is_cuda_aware(setting: str, mpi: Any) -> bool:
    """Whether MPI takes device memory: as the setting `cuda_aware` says, or, on "auto", as the loaded library answers.

    Open MPI answers MPIX_Query_cuda_support, MPICH MPIX_GPU_query_support; a library that has neither is taken as not aware.
    """
    if setting != "auto":
        return setting == "yes"
    library = ctypes.CDLL(None)
    if "Open MPI" in mpi.get_vendor()[0] and hasattr(library, "MPIX_Query_cuda_support"):
        return bool(library.MPIX_Query_cuda_support())
    if hasattr(library, "MPIX_GPU_query_support"):
        flag = ctypes.c_int(0)
        library.MPIX_GPU_query_support(ctypes.c_int(MPICH_CUDA), ctypes.byref(flag))
        return bool(flag.value)
    log.info("this MPI does not say whether it is CUDA-aware: device buffers are staged; set cuda_aware=yes if it is")
    return False


def space_of(flats: Sequence[Array], cuda_aware: bool, training_stream: Callable[[], int] | None = None) -> Space:
    """The space that flat buffers live in.

    Args:
        flats: all NumPy's, or all CuPy's on one device.
        cuda_aware: whether MPI takes device memory.
        training_stream: gives the raw cudaStream_t that the framework works on; unused on the host.
    """
    if all(isinstance(flat, np.ndarray) for flat in flats):
        return HostSpace()
    return CudaSpace(flats[0].device.id, cuda_aware, training_stream)
