"""Collectives on device arrays, with a stand-in for CuPy that executes nothing until its stream is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from hvd_gossip.buffers.cuda import CudaSpace
from hvd_gossip.collectives import Adasum, Average, Collectives, ReduceOp, Request, Result, Sum
from hvd_gossip.collectives.adasum import adasum_all
from hvd_gossip.collectives.memory import DeviceMemory
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import BFLOAT16, Cluster
from tests.device_endpoint import DeviceEndpoint
from tests.standin_cupy import CUPY, DeviceArray, install, new
from tests.standin_streams import Stream, Thread, acting, running


@pytest.fixture(autouse=True)
def training_stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stream]:
    """The framework's stream, on which all requests are made; and arrays' module is the stand-in."""
    install(monkeypatch)
    stream = Stream(kind="training")
    monkeypatch.setattr(CUPY.cuda, "get_current_stream", lambda: stream)
    with acting(Thread(stream)):
        yield stream


def make(size: int, direct: bool, seed: int = 0, **options: Any) -> Cluster:
    def space_of(_: Sequence[Any]) -> CudaSpace:
        return CudaSpace(0, direct, xp=CUPY)

    return Cluster(size, seed, endpoint_of=DeviceEndpoint, space_of=space_of, chunk_bytes=256, **options)


def on_device(values: Any, dtype: Any = np.float32) -> Any:
    return DeviceArray(np.array(values, dtype))


def plain(array: Any) -> np.ndarray:
    memory: np.ndarray = array.memory
    return memory


both = pytest.mark.parametrize("direct", [False, True], ids=["staged", "direct"])


@both
@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(
    ("dtype", "op"), [(np.float32, Average), (BFLOAT16, Sum), (np.int32, Average), (np.float64, Sum)]
)
@pytest.mark.parametrize("in_place", [False, True])
def test_allreduce(size: int, direct: bool, dtype: Any, op: ReduceOp, in_place: bool) -> None:
    cluster = make(size, direct, seed=size)
    arrays = [[on_device(np.arange(length) % 7 + rank, dtype) for length in (300, 5)] for rank in range(size)]

    async def main(rank: int, collectives: Collectives) -> list[Result]:
        requests = [
            Request(f"t{i}", "allreduce", array, op, output=array if in_place else None)
            for i, array in enumerate(arrays[rank])
        ]
        return await all_of(collectives.submit(request) for request in requests)

    results = cluster.run(main)
    for i, length in enumerate((300, 5)):
        total = (np.arange(length) % 7) * size + sum(range(size))
        wanted = (total // size if dtype is np.int32 else total / size) if op is Average else total
        for rank, result in enumerate(results):
            assert (result[i].output is arrays[rank][i]) == in_place
            np.testing.assert_allclose(
                plain(result[i].output).astype(np.float64), wanted, rtol=1e-2 if dtype is BFLOAT16 else 1e-6
            )
    cluster.leave()


@both
def test_integers_are_scaled_before_they_are_added(direct: bool) -> None:
    cluster = make(3, direct)
    array = on_device(np.full(400, 5), np.int64)
    request = {"array": array, "op": Sum, "prescale": 0.5}
    results = cluster.run(lambda rank, collectives: collectives.submit(Request("x", "allreduce", **request)))
    assert all((plain(result.output) == 6).all() for result in results)


@both
@pytest.mark.parametrize("size", [1, 2, 5])
def test_broadcast_and_allgather(size: int, direct: bool) -> None:
    cluster = make(size, direct, seed=size)

    async def main(rank: int, collectives: Collectives) -> tuple[Result, Result]:
        sent = on_device(np.arange(500) + 1000 * rank)
        rows = on_device(np.full((40 * rank + 3, 2), rank), np.int16)
        broadcast = collectives.submit(Request("b", "broadcast", sent, root_rank=size - 1))
        return await broadcast, await collectives.submit(Request("g", "allgather", rows))

    for broadcast, gathered in cluster.run(main):
        assert (plain(broadcast.output) == np.arange(500) + 1000 * (size - 1)).all()
        wanted = np.repeat(np.arange(size), [40 * rank + 3 for rank in range(size)])
        assert (plain(gathered.output) == wanted[:, None]).all()
    cluster.leave()


@both
@pytest.mark.parametrize("size", [1, 2, 5])
def test_alltoall_and_reducescatter(size: int, direct: bool) -> None:
    cluster = make(size, direct, seed=size)
    splits = [tuple((rank + other) % 4 * 30 for other in range(size)) for rank in range(size)]

    async def main(rank: int, collectives: Collectives) -> tuple[Result, Result, Result]:
        rows = on_device(np.full((sum(splits[rank]), 2), rank), np.int32)
        split = collectives.submit(Request("a", "alltoall", rows, splits=splits[rank]))
        half = collectives.submit(Request("h", "reducescatter", on_device(np.arange(301) % 5, BFLOAT16), Sum))
        whole = collectives.submit(
            Request("r", "reducescatter", on_device(np.full((7, 40), rank), np.int64), prescale=2.0)
        )
        return await split, await half, await whole

    halves = []
    for rank, (split, half, whole) in enumerate(cluster.run(main)):
        wanted = np.repeat(np.arange(size), [splits[other][rank] for other in range(size)])
        assert (plain(split.output) == wanted[:, None]).all()
        assert split.sizes == tuple(splits[other][rank] for other in range(size))
        halves.append(plain(half.output).astype(np.float64))
        assert (plain(whole.output) == sum(2 * other for other in range(size)) // size).all()
        assert len(plain(whole.output)) == whole.sizes[rank]
    assert (np.concatenate(halves) == np.arange(301) % 5 * size).all()
    cluster.leave()


@both
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_adasum(size: int, direct: bool, dtype: Any) -> None:
    cluster = make(size, direct, seed=size)
    stream = np.random.default_rng(size)
    numbers = [[stream.normal(1, 1, length).astype(dtype) for length in (300, 5)] for _ in range(size)]

    async def main(rank: int, collectives: Collectives) -> list[Result]:
        requests = [
            Request(f"t{i}", "allreduce", on_device(array, dtype), Adasum, group="g", group_size=2)
            for i, array in enumerate(numbers[rank])
        ]
        return await all_of(collectives.submit(request) for request in requests)

    results = cluster.run(main)
    for i in range(2):
        wanted = np.empty_like(numbers[0][i])
        adasum_all([mine[i] for mine in numbers], wanted, 1.0)
        for result in results:
            np.testing.assert_allclose(
                plain(result[i].output), wanted, rtol=2e-3 if dtype is np.float16 else 1e-5, atol=1e-4
            )
    cluster.leave()


@both
def test_what_the_framework_has_yet_to_compute_is_waited_for(direct: bool, training_stream: Stream) -> None:
    """The gradient's kernel is still queued on the training stream when the request is made."""
    cluster = make(2, direct)
    arrays = [on_device(np.zeros(200)) for _ in range(2)]
    with training_stream:
        for array in arrays:
            array[...] = 3.0
    requests = [Request("x", "allreduce", array, Sum) for array in arrays]
    assert (plain(arrays[0]) == 0).all()
    results = cluster.run(lambda rank, collectives: collectives.submit(requests[rank]))
    assert all((plain(result.output) == 6).all() for result in results)


@both
def test_results_are_complete_when_they_are_given(direct: bool) -> None:
    """Looked at in the very moment of completion, not when the stream has run dry."""
    cluster = make(2, direct)
    seen: list[bool] = []

    async def main(rank: int, collectives: Collectives) -> None:
        future = collectives.submit(Request("x", "allreduce", on_device(np.ones(600)), Sum))
        future.add_callback(lambda done: seen.append(bool((plain(done.result().output) == 2).all())))
        await future

    cluster.run(main)
    assert seen == [True, True]


@both
@pytest.mark.parametrize("kind", ["allgather", "reducescatter", "alltoall"])
def test_results_lie_where_the_framework_has_read_all_that_lay_there_before(
    direct: bool, kind: str, training_stream: Stream
) -> None:
    """A result is freed as soon as its user has enqueued its last use, and its memory goes to the next one."""
    memory, made = np.full(2000, -1.0, np.float32), []

    def again(length: int, dtype: Any) -> Any:
        if running().stream is training_stream:
            made.append(length)
            return DeviceArray(memory[:length])
        return new(length, dtype)

    seen: list[np.ndarray] = []
    array = on_device(np.ones((4, 50)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUPY, "empty", again)
        cluster = make(1, direct)
        request = Request("x", kind, array)
        training_stream.queue.put(lambda: seen.append(memory.copy()))  # the last use of what lay there
        cluster.run(lambda _, collectives: collectives.submit(request))
    assert made == [200]
    assert (seen[0] == -1).all()
    assert (memory[:200] == 1).all()


def test_staging_buffers_are_used_again() -> None:
    made: list[int] = []
    cluster = make(2, direct=False)
    allocate = CUPY.cuda.alloc_pinned_memory
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUPY.cuda, "alloc_pinned_memory", lambda size: (made.append(size), allocate(size))[1])
        for _ in range(5):
            cluster.run(
                lambda _, collectives: collectives.submit(Request("x", "allreduce", on_device(np.ones(20_000)), Sum))
            )
            counts.append(len(made))
    assert 0 < counts[0] == counts[-1]


def test_small_device_arrays_do_not_ride_in_the_request() -> None:
    cluster = make(2, direct=True)
    results = cluster.run(lambda _, c: c.submit(Request("x", "allreduce", on_device([1.0]), Sum)))
    assert [plain(result.output).tolist() for result in results] == [[2.0]] * 2
    assert isinstance(results[0].output, DeviceArray)


def memory(direct: bool) -> tuple[DeviceMemory, SimulatedWorld, Any]:
    world = SimulatedWorld(1)
    space = CudaSpace(0, direct, xp=CUPY)
    return DeviceMemory(DeviceEndpoint(world.endpoints[0]), on_device([0]), space), world, space._stream


@both
def test_nothing_is_received_while_a_kernel_may_still_read_the_memory(direct: bool) -> None:
    device_memory, world, stream = memory(direct)
    read: list[bool] = []
    stream.queue.put(lambda: read.append(True))
    task = world.endpoints[0].spawn(device_memory.prepare(on_device([1, 2])))
    world.run([task])
    assert read == [True]


def test_a_staging_buffer_is_free_only_when_it_has_been_copied() -> None:
    device_memory, world, stream = memory(direct=False)
    into = on_device([0, 0])
    staging = world.endpoints[0].spawn(device_memory.prepare(into))
    world.run([staging])
    arrived = staging.result()
    arrived[...] = [5, 6]
    device_memory.accept(arrived, into)
    for _ in range(2):
        stream.queue.put(lambda: None)
    assert not np.shares_memory(device_memory.publish(into)[0], arrived)
    world.run()
    assert plain(into).tolist() == [5, 6]
    assert np.shares_memory(device_memory.publish(into)[0], arrived)
