"""CudaSpace on a stand-in for CuPy that executes nothing until its stream is looked at: the order of streams and events."""

from __future__ import annotations

from collections.abc import Iterator
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
from tests.device_endpoint import DeviceEndpoint
from tests.standin_cupy import CUPY, DeviceArray, asarray, install, zeros
from tests.standin_streams import MACHINE, Stream, Thread, acting, running


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """The framework's stream, current on the thread that tests."""
    install(monkeypatch)
    stream = Stream(kind="training")
    with acting(Thread(stream)):
        yield stream


def make(training: Stream, direct: bool = False, device: int = 0) -> CudaSpace:
    return CudaSpace(device, direct, lambda: training.ptr, xp=CUPY)


def test_staging_buffers_are_host_memory_and_direct_ones_device_memory(training: Stream) -> None:
    assert type(make(training).wire(8, np.dtype(np.float32))) is np.ndarray
    assert type(make(training, direct=True).wire(8, np.dtype(np.float32))) is DeviceArray
    assert make(training).wire(0, np.dtype(np.float32)).size == 0


def test_staged_bytes_are_there_only_once_settled(training: Stream) -> None:
    space = make(training)
    wire = space.wire(4, np.dtype(np.float16))
    wire[:] = 0
    values = asarray(np.arange(4, dtype=np.float32))
    space.updated()
    space.publish(values, wire)
    assert wire.tolist() == [0, 0, 0, 0]
    world = SimulatedWorld(1)
    endpoint = DeviceEndpoint(world.endpoints[0])

    async def settle() -> list[float]:
        await space.settled(endpoint)
        return [float(value) for value in wire]

    task = endpoint.spawn(settle())
    world.run(until=task.done)
    assert task.result() == [0, 1, 2, 3]


def test_the_engine_works_after_the_training_threads_last_update(training: Stream) -> None:
    space = make(training)
    log: list[str] = []
    training.queue.put(lambda: log.append("optimizer"))
    space.updated()
    with space.computing():
        running().stream.queue.put(lambda: log.append("engine"))
        engine = running().stream
    engine.synchronize()
    assert log == ["optimizer", "engine"]


def test_the_training_thread_works_after_what_the_engine_has_enqueued(training: Stream) -> None:
    space = make(training)
    log: list[str] = []
    with space.computing():
        running().stream.queue.put(lambda: log.append("engine"))
    space.follow()
    training.queue.put(lambda: log.append("forward"))
    training.synchronize()
    assert log == ["engine", "forward"]


def test_arithmetic_of_a_bound_thread_is_on_the_engines_stream(training: Stream) -> None:
    space = make(training)
    space.bind()
    assert running().stream is space._stream


def test_each_side_waits_for_the_others_last_use_of_a_chunk(training: Stream) -> None:
    log: list[str] = []
    space = make(training)
    (chunk,) = Replica([zeros(4, np.float32)], space=space).chunks
    with space.engine(chunk):
        running().stream.queue.put(lambda: log.append("engine"))
    with space.training(chunk):
        running().stream.queue.put(lambda: log.append("training"))
    training.synchronize()
    assert log == ["engine", "training"]
    with space.training(chunk):
        running().stream.queue.put(lambda: log.append("training again"))
    with space.engine(chunk):
        running().stream.queue.put(lambda: log.append("engine again"))
        engine = running().stream
    engine.synchronize()
    assert log[2:] == ["training again", "engine again"]


def test_the_engine_is_ordered_with_the_training_thread_around_a_call(training: Stream) -> None:
    """A mean taken for an evaluation: the copy that the engine averages, and the mean that the training thread reads."""
    log: list[str] = []
    space = make(training)
    engine = SimpleNamespace(call=lambda start, what: start())
    context = SimpleNamespace(replica=Replica([zeros(4, np.float32)], space=space))
    worker = Worker(cast(Any, engine), cast(Any, SimpleNamespace(context=context)), cast(Any, None))
    training.queue.put(lambda: log.append("hold"))
    worker.call(lambda: running().stream.queue.put(lambda: log.append("average")), "averaging")
    training.use()
    training.queue.put(lambda: log.append("read"))
    training.synchronize()
    assert log == ["hold", "average", "read"]


def test_the_engines_thread_is_bound_to_its_device_and_the_training_thread_is_not(training: Stream) -> None:
    """CUDA makes a context, hundreds of megabytes, on the device that is current; and a script has its own."""
    space = make(training, device=3)
    wire = space.wire(4, np.dtype(np.float32))
    (chunk,) = Replica([zeros(4, np.float32)], space=space).chunks
    with space.training(chunk):
        space.updated()
    assert MACHINE.used == []
    for act in (
        lambda: space.engine(chunk).__enter__(),
        lambda: space.publish(chunk.x, wire),
        lambda: space.settled(DeviceEndpoint(SimulatedWorld(1).endpoints[0])),
    ):
        MACHINE.used = []
        act()
        assert MACHINE.used == [3]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("wire", ["parameter", "float16"])
def test_an_exchange_of_chunks_through_device_memory(training: Stream, direct: bool, wire: str) -> None:
    world = SimulatedWorld(2)
    endpoints = [DeviceEndpoint(endpoint) for endpoint in world.endpoints]
    flats = [asarray(np.full(1000, rank + 1, np.float32)) for rank in range(2)]
    replicas = [Replica([flat], 512, make(training, direct)) for flat in flats]

    def average(rank: int) -> Any:
        lanes = Lanes(endpoints[rank], replicas[rank], MixingSettings(wire_dtype=wire), Counters(), 64, corrected=True)
        peer = 1 - rank
        return lanes.exchange([peer], [peer], lambda chunk, mine, got: chunk.correct(0.5, got[peer], mine))

    for replica in replicas:
        replica.space.updated()
    tasks = [endpoints[rank].spawn(average(rank)) for rank in range(2)]
    world.run(until=lambda: all(task.done() for task in tasks))
    for replica in replicas:
        replica.fold()
    assert [sorted(set(flat.tolist())) for flat in flats] == [[1.5], [1.5]]


def test_the_setting_decides_and_auto_asks_the_library() -> None:
    mpi = SimpleNamespace(get_vendor=lambda: ("unknown", (1, 0)))
    assert is_cuda_aware("yes", mpi) is True
    assert is_cuda_aware("no", mpi) is False
    assert is_cuda_aware("auto", mpi) is False
