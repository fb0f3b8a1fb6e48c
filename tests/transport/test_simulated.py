"""The simulated transport keeps the Endpoint's contract, and its clock, snapshots and deaths do what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd_gossip.errors import ConfigError, TransportError
from hvd_gossip.tasks import Cancelled, Future
from hvd_gossip.transport.endpoint import CHANNELS, Endpoint
from hvd_gossip.transport.simulated import SimulatedEndpoint, SimulatedWorld, Snapshot
from hvd_gossip.transport.simulated_links import Links, exponential

if TYPE_CHECKING:

    def keeps_the_contract(endpoint: SimulatedEndpoint) -> Endpoint:
        return endpoint


DTYPES = ["float32", "float64", "float16", "int8", "int64", "uint16", "bool", "complex64", ml_dtypes.bfloat16]


def exchange(world: SimulatedWorld, payload: Any, into: Any = None) -> Future[Any]:
    """Sends from rank 0 to rank 1; the future of the receive, which is done."""
    sending = world.endpoints[0].send(1, 64, payload)
    receiving: Future[Any] = world.endpoints[1].recv_any(64) if into is None else world.endpoints[1].recv(0, 64, into)
    world.run([sending, receiving])
    return receiving


# What travels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4)])
@pytest.mark.parametrize("eager_limit", [0, math.inf])
def test_arrays_of_any_dtype_and_shape_arrive(dtype: Any, shape: tuple[int, ...], eager_limit: float) -> None:
    payload = np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    into = np.ones(shape, dtype)
    exchange(SimulatedWorld(2, eager_limit=eager_limit), payload, into)
    np.testing.assert_array_equal(into, payload)


def test_arrays_travel_as_their_bytes() -> None:
    payload = np.array([1.5, -2.0], np.float32)
    into = np.zeros((2, 4), np.uint8)
    exchange(SimulatedWorld(2), payload, into)
    assert into.tobytes() == payload.tobytes()


@pytest.mark.parametrize("into_any", [True, False])
@pytest.mark.parametrize("payload", [b"", b"abc", b"x" * 10_000])
def test_bytes_arrive(payload: bytes, into_any: bool) -> None:
    into = None if into_any else np.zeros(len(payload), np.uint8)
    receiving = exchange(SimulatedWorld(2), payload, into)
    got = receiving.result() if into is None else (0, into.tobytes())
    assert got == (0, payload)


def test_a_buffered_message_waits_for_its_receive() -> None:
    world = SimulatedWorld(2, eager_limit=math.inf)
    payload, into = np.arange(5.0), np.zeros(5)
    sending = world.endpoints[0].send(1, 64, payload)
    world.run([sending])
    payload[:] = -1
    world.run([world.endpoints[1].recv(0, 64, into)])
    np.testing.assert_array_equal(into, np.arange(5.0))


def test_a_rank_may_send_to_itself() -> None:
    world = SimulatedWorld(1)
    into = np.zeros(3)
    world.run([world.endpoints[0].recv(0, 64, into), world.endpoints[0].send(0, 64, np.ones(3))])
    assert into.tolist() == [1, 1, 1]


@pytest.mark.parametrize("length", [3, 5])
def test_a_message_of_another_length_fails_the_receive_and_not_the_send(length: int) -> None:
    world = SimulatedWorld(2)
    sending = world.endpoints[0].send(1, 64, np.zeros(length))
    receiving = world.endpoints[1].recv(0, 64, np.zeros(4))
    with pytest.raises(TransportError, match=rf"rank 1: a message of {8 * length} bytes from rank 0 on channel 64"):
        world.run([receiving])
    assert sending.done()
    assert sending.error() is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda end: end.send(2, 64, b""), ValueError, "peer 2"),
        (lambda end: end.send(-1, 64, b""), ValueError, "peer -1"),
        (lambda end: end.send(1, CHANNELS, b""), ValueError, f"channel {CHANNELS}"),
        (lambda end: end.recv(1, -1, np.zeros(1)), ValueError, "channel -1"),
        (lambda end: end.recv_any(CHANNELS), ValueError, f"channel {CHANNELS}"),
        (lambda end: end.send(1, 64, np.zeros((4, 4))[:, 1]), ValueError, "C-contiguous"),
        (lambda end: end.send(1, 64, np.array([None])), ValueError, "Python objects"),
        (lambda end: end.send(1, 64, [1.0]), TypeError, "cannot send list"),
        (lambda end: end.recv(1, 64, np.broadcast_to(0.0, (1,))), ValueError, "read-only"),
        (lambda end: end.recv(1, 64, bytearray(4)), TypeError, "bytearray"),
        (lambda end: end.sleep(-1), ValueError, "sleep -1"),
        (lambda end: end.sleep(math.nan), ValueError, "sleep nan"),
    ],
)
def test_bad_input_raises_before_anything_happens(
    call: Callable[[Endpoint], object], error: type[Exception], message: str
) -> None:
    world = SimulatedWorld(2)
    with pytest.raises(error, match=message):
        call(world.endpoints[0])
    world.run()
    assert world.events == 0


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": 2, "snapshot": "early"}, {"size": 2, "in_flight": "?"}, {"size": 2, "detection_delay": -1}],
)
def test_a_world_checks_its_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SimulatedWorld(**options)


# Matching


def test_recv_any_takes_messages_in_the_order_of_their_arrival() -> None:
    world = SimulatedWorld(4, links=Links(latency=lambda source, dest: 4.0 - source))
    got = []

    async def listen(endpoint: Endpoint) -> None:
        for _ in range(6):
            got.append(await endpoint.recv_any(1))

    world.endpoints[0].spawn(listen(world.endpoints[0]))
    for rank in (1, 2, 3):
        for number in range(2):
            world.endpoints[rank].send(0, 1, b"%d" % number)
    world.run()
    assert got == [(rank, b"%d" % number) for rank in (3, 2, 1) for number in range(2)]


def test_recv_any_finds_what_came_before_its_first_call() -> None:
    world = SimulatedWorld(3)
    for rank in (1, 2):
        world.endpoints[rank].send(0, 1, bytes([rank]))
    world.run()
    messages = [world.endpoints[0].recv_any(1).result() for _ in range(2)]
    assert messages == [(1, b"\1"), (2, b"\2")]


def test_one_recv_any_a_channel_at_a_time() -> None:
    endpoint = SimulatedWorld(2).endpoints[0]
    endpoint.recv_any(1)
    endpoint.recv_any(2)
    with pytest.raises(TransportError, match="rank 0: a second recv_any on channel 1"):
        endpoint.recv_any(1)


def test_recv_and_recv_any_do_not_mix() -> None:
    endpoint = SimulatedWorld(2).endpoints[0]
    endpoint.recv_any(1)
    with pytest.raises(TransportError, match="recv on channel 1"):
        endpoint.recv(1, 1, np.zeros(1))
    endpoint.recv(1, 2, np.zeros(1))
    with pytest.raises(TransportError, match="recv_any on channel 2"):
        endpoint.recv_any(2)


def test_a_cancelled_receive_takes_no_message() -> None:
    world = SimulatedWorld(2)
    first, into = np.zeros(1), np.zeros(1)
    cancelled = world.endpoints[1].recv(0, 64, first)
    receiving = world.endpoints[1].recv(0, 64, into)
    cancelled.cancel()
    with pytest.raises(Cancelled):
        cancelled.result()
    world.endpoints[0].send(1, 64, np.ones(1))
    world.run([receiving])
    assert (first[0], into[0]) == (0, 1)


def test_recv_any_may_be_called_again_after_a_cancel() -> None:
    world = SimulatedWorld(2)
    world.endpoints[1].recv_any(1).cancel()
    receiving = world.endpoints[1].recv_any(1)
    world.endpoints[0].send(1, 1, b"x")
    world.run([receiving])
    assert receiving.result() == (0, b"x")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    lengths=st.lists(st.integers(0, 40), min_size=2, max_size=12),
    eager_limit=st.sampled_from([0, 64, math.inf]),
    serialize=st.booleans(),
    snapshot=st.sampled_from(["latest", "random"]),
)
def test_messages_of_a_channel_never_overtake(
    seed: int, lengths: list[int], eager_limit: float, serialize: bool, snapshot: Snapshot
) -> None:
    links = Links(1e-3, 1e4, exponential(5e-3), serialize_send=serialize, serialize_receive=serialize)
    world = SimulatedWorld(2, links=links, seed=seed, eager_limit=eager_limit, snapshot=snapshot)
    sent = [np.full(length, index, np.int64) for index, length in enumerate(lengths)]
    got = [np.full(length, -1, np.int64) for length in lengths]
    futures = [world.endpoints[0].send(1, 64, array) for array in sent]
    futures += [world.endpoints[1].recv(0, 64, array) for array in got]
    world.run(futures)
    for expected, actual in zip(sent, got, strict=True):
        np.testing.assert_array_equal(actual, expected)


def arrival_order(seed: int) -> list[int]:
    world = SimulatedWorld(2, links=Links(delay=exponential(1.0)), seed=seed)
    order: list[int] = []
    for channel in range(64, 72):
        receiving = world.endpoints[1].recv(0, channel, np.zeros(1))
        receiving.add_callback(partial(lambda channel, _: order.append(channel), channel))
        world.endpoints[0].send(1, channel, np.zeros(1))
    world.run()
    return order


def test_channels_overtake_each_other_differently_for_each_seed() -> None:
    orders = {tuple(arrival_order(seed)) for seed in range(8)}
    assert len(orders) == 8


def test_the_same_seed_gives_the_same_run() -> None:
    assert arrival_order(3) == arrival_order(3)
    streams = [[end.rng.random() for end in SimulatedWorld(3, seed=seed).endpoints] for seed in (1, 1, 2)]
    assert streams[0] == streams[1] != streams[2]
    assert len(set(streams[0])) == 3


def test_order_is_kept_cheaply_over_thousands_of_channels() -> None:
    world = SimulatedWorld(2, links=Links())
    for channel in range(CHANNELS):
        world.run([world.endpoints[0].send(1, channel, b"x")])
    assert len(world.endpoints[1]._last) <= 512


# Size


@pytest.mark.parametrize("size", [2, 3, 5, 4096])
def test_any_number_of_ranks_shift_a_ring(size: int) -> None:
    world = SimulatedWorld(size, eager_limit=0)
    got = np.zeros((size, 2))

    async def shift(endpoint: Endpoint) -> None:
        sending = endpoint.send((endpoint.rank + 1) % size, 64, np.full(2, float(endpoint.rank)))
        await endpoint.recv((endpoint.rank - 1) % size, 64, got[endpoint.rank])
        await sending

    for endpoint in world.endpoints:
        endpoint.spawn(shift(endpoint))
    world.run()
    np.testing.assert_array_equal(got[:, 0], np.roll(np.arange(size), 1))
    assert world.events == 3 * size
