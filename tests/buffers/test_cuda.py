"""CudaSpace with NumPy in CuPy's place: its order of streams and events is checked, its kernels are NumPy's.

The stand-in executes nothing until its stream is told to: work enqueued is a list, so that a buffer handed over too early
holds the wrong bytes. What only a device can show is listed in docs/gpu-status.md.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hvd_gossip.algorithms.lanes import Lanes
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.buffers.cuda import CudaSpace, is_cuda_aware
from hvd_gossip.buffers.replica import Replica
from hvd_gossip.observe.counters import Counters
from hvd_gossip.transport.simulated import SimulatedWorld
from hvd_gossip.worker import Worker


class Event:
    """Recorded on a stream: done when the stream has run what was enqueued before."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.position = stream, stream.enqueued

    @property
    def done(self) -> bool:
        self.stream.advance(1)
        return self.stream.executed >= self.position


class Stream:
    """A queue of work that runs one piece at each look at it."""

    current: Stream

    def __init__(self, non_blocking: bool = False) -> None:
        self.work: list[Callable[[], object]] = []
        self.executed = self.enqueued = 0
        self.waited: list[Event] = []

    def enqueue(self, work: Callable[[], object]) -> None:
        self.work.append(work)
        self.enqueued += 1

    def advance(self, count: int) -> None:
        while self.work and count:
            self.work.pop(0)()
            self.executed += 1
            count -= 1

    def synchronize(self) -> None:
        self.advance(len(self.work))

    def wait_event(self, event: Event) -> None:
        self.waited.append(event)
        self.enqueue(lambda: event.stream.advance(event.position - event.stream.executed))

    def record(self) -> Event:
        return Event(self)

    def use(self) -> None:
        Stream.current = self

    def __enter__(self) -> Stream:
        self._outer = Stream.current
        Stream.current = self
        return self

    def __exit__(self, *_: object) -> None:
        Stream.current = self._outer


class DeviceArray(np.ndarray):
    """An array whose copies to and from the host are enqueued on a stream."""

    def get(self, stream: Stream, out: np.ndarray, blocking: bool) -> None:
        assert not blocking
        source = np.asarray(self)
        stream.enqueue(lambda: np.copyto(out, source))

    def set(self, array: np.ndarray, stream: Stream) -> None:
        np.copyto(self, array)


class Borrowed:
    """A stream that is there already."""

    def __init__(self, pointer: int, device: int) -> None: ...


class Device:
    used: list[int]
    """Devices that a thread was bound to."""

    def __init__(self, number: int) -> None:
        self.number = number

    def use(self) -> None:
        self.used.append(self.number)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def cupy() -> Any:
    class ExternalStream(Borrowed, Stream):
        def __new__(cls) -> Any:
            return training

    training = Stream.__new__(ExternalStream)
    Stream.__init__(training)
    Stream.current = training
    Device.used = []
    cuda = SimpleNamespace(
        Device=Device,
        Stream=Stream,
        ExternalStream=ExternalStream,
        alloc_pinned_memory=lambda size: bytearray(size),
    )
    return SimpleNamespace(
        cuda=cuda,
        training=training,
        zeros=lambda n, dtype: np.zeros(n, dtype).view(DeviceArray),
        empty=lambda n, dtype: np.empty(n, dtype).view(DeviceArray),
    )


def test_staging_buffers_are_host_memory_and_direct_ones_device_memory(cupy: Any) -> None:
    assert type(CudaSpace(0, False, xp=cupy).wire(8, np.dtype(np.float32))) is np.ndarray
    assert type(CudaSpace(0, True, xp=cupy).wire(8, np.dtype(np.float32))) is DeviceArray
    assert CudaSpace(0, False, xp=cupy).wire(0, np.dtype(np.float32)).size == 0


def test_staged_bytes_are_there_only_once_settled(cupy: Any) -> None:
    space = CudaSpace(0, False, xp=cupy)
    wire = space.wire(4, np.dtype(np.float16))
    wire[:] = 0
    space.publish(np.arange(4, dtype=np.float32).view(DeviceArray), wire)
    assert wire.tolist() == [0, 0, 0, 0]
    world = SimulatedWorld(1)

    async def settle() -> list[float]:
        await space.settled(world.endpoints[0])
        return [float(value) for value in wire]

    task = world.endpoints[0].spawn(settle())
    world.run(until=task.done)
    assert task.result() == [0, 1, 2, 3]


def test_the_engine_works_after_the_training_threads_last_update(cupy: Any) -> None:
    space = CudaSpace(0, False, lambda: 1234, xp=cupy)
    log: list[str] = []
    cupy.training.enqueue(lambda: log.append("optimizer"))
    space.updated()
    with space.computing():
        Stream.current.enqueue(lambda: log.append("engine"))
        engine = Stream.current
    engine.synchronize()
    assert log == ["optimizer", "engine"]


def test_the_training_thread_works_after_what_the_engine_has_enqueued(cupy: Any) -> None:
    space = CudaSpace(0, False, lambda: 1234, xp=cupy)
    log: list[str] = []
    with space.computing():
        Stream.current.enqueue(lambda: log.append("engine"))
    space.follow()
    cupy.training.enqueue(lambda: log.append("forward"))
    cupy.training.synchronize()
    assert log == ["engine", "forward"]


def test_arithmetic_of_a_bound_thread_is_on_the_engines_stream(cupy: Any) -> None:
    space = CudaSpace(0, False, xp=cupy)
    space.bind()
    assert Stream.current is space._stream


def test_each_side_waits_for_the_others_last_use_of_a_chunk(cupy: Any) -> None:
    space = CudaSpace(0, False, lambda: 0, xp=cupy)
    (chunk,) = Replica([np.zeros(4, np.float32).view(DeviceArray)], space=space).chunks
    with space.engine(chunk):
        engine = Stream.current
    with space.training(chunk):
        pass
    assert [event.stream for event in cupy.training.waited] == [engine]
    with space.engine(chunk):
        pass
    assert cupy.training in [event.stream for event in engine.waited]


def test_the_engine_is_ordered_with_the_training_thread_around_a_call(cupy: Any) -> None:
    """A mean taken for an evaluation: the copy that the engine averages, and the mean that the training thread reads."""
    log: list[str] = []
    space = CudaSpace(0, False, lambda: 0, xp=cupy)
    engine = SimpleNamespace(call=lambda start, what: start())
    context = SimpleNamespace(replica=Replica([np.zeros(4, np.float32).view(DeviceArray)], space=space))
    worker = Worker(cast(Any, engine), cast(Any, SimpleNamespace(context=context)), cast(Any, None))
    cupy.training.enqueue(lambda: log.append("hold"))
    worker.call(lambda: Stream.current.enqueue(lambda: log.append("average")), "averaging")
    Stream.current = cupy.training
    cupy.training.enqueue(lambda: log.append("read"))
    cupy.training.synchronize()
    assert log == ["hold", "average", "read"]


def test_the_engines_thread_is_bound_to_its_device_and_the_training_thread_is_not(cupy: Any) -> None:
    """CUDA makes a context, hundreds of megabytes, on the device that is current; and a script has its own."""
    space = CudaSpace(3, False, lambda: 0, xp=cupy)
    wire = space.wire(4, np.dtype(np.float32))
    (chunk,) = Replica([np.zeros(4, np.float32).view(DeviceArray)], space=space).chunks
    with space.training(chunk):
        space.updated()
    assert Device.used == []
    for act in (
        lambda: space.engine(chunk).__enter__(),
        lambda: space.publish(chunk.x, wire),
        lambda: space.settled(SimulatedWorld(1).endpoints[0]),
    ):
        Device.used = []
        act()
        assert Device.used == [3]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("wire", ["parameter", "float16"])
def test_an_exchange_of_chunks_through_device_memory(cupy: Any, direct: bool, wire: str) -> None:
    world = SimulatedWorld(2)
    flats = [np.full(1000, rank + 1, np.float32).view(DeviceArray) for rank in range(2)]
    replicas = [Replica([flat], 512, CudaSpace(0, direct, lambda: 0, xp=cupy)) for flat in flats]

    def average(rank: int) -> Any:
        lanes = Lanes(
            world.endpoints[rank], replicas[rank], MixingSettings(wire_dtype=wire), Counters(), 64, corrected=True
        )
        peer = 1 - rank
        return lanes.exchange([peer], [peer], lambda chunk, mine, got: chunk.correct(0.5, got[peer], mine))

    tasks = [world.endpoints[rank].spawn(average(rank)) for rank in range(2)]
    world.run(until=lambda: all(task.done() for task in tasks))
    for replica in replicas:
        replica.fold()
    assert [sorted(set(flat.tolist())) for flat in flats] == [[1.5], [1.5]]


def test_the_setting_decides_and_auto_asks_the_library() -> None:
    mpi = SimpleNamespace(get_vendor=lambda: ("unknown", (1, 0)))
    assert is_cuda_aware("yes", mpi) is True
    assert is_cuda_aware("no", mpi) is False
    assert is_cuda_aware("auto", mpi) is False
