"""CuPy memory: streams, events, and the way to MPI: device buffers where it is CUDA-aware, else pinned host staging.

Two streams meet here: the training thread's (the framework's) and the engine's, on which everything runs that the engine's thread
enqueues, for all replicas and collectives of the device. What orders them are events: where the training thread hands over to
the engine, or takes over from it (`updated`, `follow`), and two for each chunk, for its last use by either thread. MPI knows no
streams, so before a buffer is handed to it the engine's stream must have drained (`settled`, polled, not blocking).

Buffers for MPI come from plain cudaMalloc (CuPy's default pool): memory of cudaMallocAsync or cuMemCreate cannot be shared
between processes by CUDA IPC and falls back, silently, to a path a hundred times slower (docs/gpu.md).
"""

from __future__ import annotations

import ctypes
import functools
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
        stream: the engine's, a new one by default.
    """

    def __init__(
        self,
        device: int,
        direct: bool,
        training_stream: Callable[[], int] | None = None,
        xp: Any = None,
        stream: Any = None,
    ) -> None:
        self.direct = direct
        self.immediate = False
        self._xp = xp = importlib.import_module("cupy") if xp is None else xp
        self._device = device
        self._training_stream = training_stream or (lambda: 0)
        with xp.cuda.Device(device):
            self._stream = xp.cuda.Stream(non_blocking=True) if stream is None else stream

    def zeros(self, length: int, dtype: np.dtype[Any]) -> Array:
        with self.computing():
            zeros = self._xp.zeros(length, dtype)
        self._stream.synchronize()
        return zeros

    def wire(self, length: int, dtype: np.dtype[Any]) -> Array:
        if self.direct:
            with self.computing():
                wire = self._xp.empty(length, dtype)
            self._stream.synchronize()  # it may lie where kernels under way still read
            return wire
        memory = self._xp.cuda.alloc_pinned_memory(max(1, length * dtype.itemsize))
        return np.frombuffer(memory, np.uint8, length * dtype.itemsize).view(dtype)

    def empty_for(self, stream: Any, length: int, dtype: np.dtype[Any]) -> Array:
        """Memory for a result, which whoever gets it will use, and free, on their own stream, without telling the engine.

        It is taken from what belongs to that stream, and the engine writes to it after what is enqueued there now.
        """
        with self._xp.cuda.Device(self._device), stream:
            result = self._xp.empty(length, dtype)
            free = stream.record()
        self._stream.wait_event(free)
        return result

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Work on the engine's stream, from whichever thread."""
        with self._xp.cuda.Device(self._device), self._stream:
            yield

    @contextmanager
    def engine(self, chunk: Guarded) -> Iterator[None]:
        self.bind()
        with chunk.lock, self.computing():
            self._follow(self._stream, chunk, "training")
            yield
            chunk.fences["engine"] = self._stream.record()

    @contextmanager
    def training(self, chunk: Guarded) -> Iterator[None]:
        stream = self._borrowed()
        with chunk.lock, self._xp.cuda.Device(self._device), stream:
            self._follow(stream, chunk, "engine")
            yield
            chunk.fences["training"] = stream.record()

    def updated(self) -> None:
        with self._xp.cuda.Device(self._device):
            self._stream.wait_event(self._borrowed().record())

    def follow(self) -> None:
        with self._xp.cuda.Device(self._device):
            self._borrowed().wait_event(self._stream.record())

    def publish(self, value: Array, wire: Array) -> None:
        self.bind()
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
        self.bind()
        with self.computing():
            done = self._stream.record()
        return endpoint.poll(lambda: bool(done.done), "the device to finish this worker's own kernels")

    def reached(self, event: Any, endpoint: Endpoint) -> Awaitable[None]:
        """Done when what had been enqueued on the event's stream before it has happened."""
        self.bind()
        return endpoint.poll(lambda: bool(event.done), "the device to finish what was submitted")

    def bind(self) -> None:
        """Engine's thread: CUDA calls are about this device, and this stream, from now on."""
        self._xp.cuda.Device(self._device).use()
        self._stream.use()

    def _borrowed(self) -> Any:
        """The training thread's stream."""
        return borrowed_stream(self._xp, self._training_stream(), self._device)

    @staticmethod
    def _follow(stream: Any, chunk: Guarded, other: str) -> None:
        event = chunk.fences.get(other)
        if event is not None:
            stream.wait_event(event)


def borrowed_stream(xp: Any, pointer: int, device: int) -> Any:
    """Another library's stream as one of CuPy's, which leaves it alone in the end.

    CuPy's ExternalStream is that, but warns, from version 14 on, that Stream.from_external has replaced it; whose streams
    are destroyed with their last reference, as CuPy's own are. So the warning is gone around.

    Args:
        xp: the cupy module.
        pointer: the raw cudaStream_t; 0 is the default stream.
        device: the number of the stream's device.
    """
    kind = xp.cuda.ExternalStream
    stream = kind.__new__(kind)
    super(kind, stream).__init__(pointer, device)
    return stream


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
    return device_space(flats[0].device.id, cuda_aware, training_stream)


def device_space(device: int, direct: bool, training_stream: Callable[[], int] | None = None) -> CudaSpace:
    """A space on a device whose engine's stream is that of all others there."""
    return CudaSpace(device, direct, training_stream, stream=engine_stream(device))


@functools.cache
def engine_stream(device: int) -> Any:
    """The stream of all that the engine's thread enqueues on a device."""
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(device):
        return cupy.cuda.Stream(non_blocking=True)
