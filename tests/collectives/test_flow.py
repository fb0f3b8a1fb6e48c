"""Windows of sends and receives, and chunk buffers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from hvd_gossip.collectives.flow import WINDOW, ChunkPool, Receives, SendQueue, Transfer
from hvd_gossip.collectives.memory import HOST
from hvd_gossip.errors import PeerFailedError
from hvd_gossip.tasks import Cancelled
from hvd_gossip.transport.simulated import SimulatedWorld

CHANNEL = 9000


def transfer(world: SimulatedWorld, rank: int) -> Transfer:
    return Transfer(world.endpoints[rank], range(world.size), CHANNEL)


def test_sends_arrive_in_order_however_many_they_are() -> None:
    world = SimulatedWorld(2, eager_limit=float("inf"))
    arrived: list[int] = []

    async def sender() -> None:
        queue = SendQueue(transfer(world, 0), 1, Receives(transfer(world, 0), 1).abort)
        for number in range(3000):
            queue.put(np.array([number]))
        await queue.drained()

    async def receiver() -> None:
        receives = Receives(transfer(world, 1), 0)
        for _ in range(3000):
            into = np.empty(1, np.int64)
            await receives.post(into, into)
            arrived.append(int((await receives.next())[0]))

    world.run([world.endpoints[0].spawn(sender()), world.endpoints[1].spawn(receiver())])
    assert arrived == list(range(3000))


def test_only_a_window_of_sends_is_outstanding() -> None:
    world = SimulatedWorld(2, eager_limit=0)
    queue = SendQueue(transfer(world, 0), 1, Receives(transfer(world, 0), 1).abort)
    freed: list[int] = []
    for number in range(WINDOW + 3):
        queue.put(np.array([number]), partial(freed.append, number))
    assert queue._outstanding == WINDOW
    into = [np.empty(1, np.int64) for _ in range(WINDOW + 3)]
    futures = [world.endpoints[1].recv(0, CHANNEL, array) for array in into]
    world.run(futures)
    world.run()
    assert [int(array[0]) for array in into] == freed == list(range(WINDOW + 3))


def test_a_failed_send_frees_buffers_and_wakes_who_receives() -> None:
    world = SimulatedWorld(3, eager_limit=0)
    receives = Receives(transfer(world, 0), 2)
    queue = SendQueue(transfer(world, 0), 1, receives.abort)
    freed: list[int] = []
    for number in range(WINDOW + 2):
        queue.put(np.array([number]), partial(freed.append, number))

    async def wait() -> None:
        await receives.post(np.empty(1), "chunk")
        with pytest.raises(PeerFailedError, match="rank 1"):
            await receives.next()
        with pytest.raises(PeerFailedError, match="rank 1"):
            await receives.next()
        with pytest.raises(PeerFailedError, match="rank 1"):
            await queue.drained()

    world.kill(1)
    world.run([world.endpoints[0].spawn(wait())])
    world.run()
    assert sorted(freed) == list(range(WINDOW + 2))


def test_nothing_is_received_for_an_empty_chunk() -> None:
    world = SimulatedWorld(2)
    receives = Receives(transfer(world, 0), 1)
    receives.skip("empty")
    assert world.endpoints[0].spawn(receives.next()).done() is False
    world.run()
    assert len(receives) == 0


def test_a_cancelled_receive_is_not_mistaken_for_a_failed_send() -> None:
    world = SimulatedWorld(2)
    receives = Receives(transfer(world, 0), 1)

    async def wait() -> None:
        await receives.post(np.empty(1), "chunk")
        await receives.next()

    task = world.endpoints[0].spawn(wait())
    task.add_callback(lambda _: None)
    world.call_at(1.0, receives.cancel)
    world.run()
    assert isinstance(task.error(), Cancelled)


def test_pool_makes_no_more_than_its_limit_and_gives_them_again() -> None:
    world = SimulatedWorld(1)
    pool = ChunkPool(HOST, 10, np.dtype(np.float32), 2)
    taken: list[np.ndarray] = []

    async def take() -> None:
        taken.append(await pool.take())

    tasks = [world.endpoints[0].spawn(take()) for _ in range(3)]
    world.run(tasks[:2])
    assert [buffer.shape for buffer in taken] == [(10,), (10,)]
    assert not tasks[2].done()
    pool.give(taken[0])
    world.run(tasks)
    assert taken[2] is taken[0]
