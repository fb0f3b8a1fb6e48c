"""The MPI endpoint, on real processes."""

import pytest

from tests.mpi import run_ranks

PREAMBLE = """
import numpy as np
from mpi4py import MPI
from hvd_gossip.engine import Engine
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.mpi import MpiEndpoint, load_mpi
from tests.mpi import report

engine = Engine(lambda scheduler: MpiEndpoint(load_mpi().COMM_WORLD.Clone(), scheduler, seed=3))
engine.start()
ep = engine.endpoint
"""


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_everybody_exchanges_with_everybody(ranks: int) -> None:
    script = (
        PREAMBLE
        + """
async def exchange():
    inbox = [np.empty(100_000 + 8 * peer, np.uint8) for peer in range(ep.size)]
    moving = [ep.recv(peer, 7, inbox[peer]) for peer in range(ep.size)]
    moving += [ep.send(peer, 7, np.full(100_000 + 8 * ep.rank, ep.rank, np.uint8)) for peer in range(ep.size)]
    await all_of(moving)
    return [sorted(set(box.tolist())) for box in inbox]

report(engine.call(exchange))
engine.stop()
"""
    )
    results = run_ranks(ranks, script).in_rank_order()
    assert results == [[[peer] for peer in range(ranks)]] * ranks


def test_messages_on_a_channel_keep_their_order_and_any_length_arrives() -> None:
    script = (
        PREAMBLE
        + """
LENGTHS = [0, 1, 100, 2048, 2049, 70_000, 3]
async def talk():
    if ep.rank == 0:
        seen = []
        for _ in range(2 * len(LENGTHS)):
            seen.append(await ep.recv_any(5))
        return [[m.source, len(m.data), sorted(set(m.data))] for m in seen]
    await all_of([ep.send(0, 5, bytes([ep.rank]) * length) for length in LENGTHS])

report(engine.call(talk))
engine.stop()
"""
    )
    seen = run_ranks(3, script).results[0]
    for rank in (1, 2):
        lengths = [length for source, length, _ in seen if source == rank]
        assert lengths == [0, 1, 100, 2048, 2049, 70_000, 3]
        assert all(content in ([], [rank]) for source, _, content in seen if source == rank)


def test_messages_that_come_before_anybody_wants_them_are_kept_in_their_order() -> None:
    script = (
        PREAMBLE
        + """
LENGTHS = [100, 200_000, 7]
async def talk():
    if ep.rank > 0:
        moving = [ep.send(0, 5, np.full(length, ep.rank + index, np.uint8)) for index, length in enumerate(LENGTHS)]
        moving += [ep.send(0, 6, bytes([ep.rank]) * length) for length in (3, 5000)]
        moving += [ep.send(0, 7, np.zeros(64, np.uint8)), ep.send(0, 9, b"all sent")]
        return await all_of(moving)
    for _ in range(ep.size - 1):
        await ep.recv_any(9)
    ep.recv_any(9)  # somebody listens, so that the others' messages are seen
    while sum(map(len, ep._unclaimed.values())) < 6 * (ep.size - 1):
        await ep.sleep(0.001)
    came = sorted(ep._unclaimed)
    chunks = {peer: [np.zeros(length, np.uint8) for length in LENGTHS] for peer in (2, 1)}
    await all_of([ep.recv(peer, 5, chunk) for peer in chunks for chunk in chunks[peer]])
    texts = [await ep.recv_any(6) for _ in range(2 * (ep.size - 1))]
    errors = []
    for peer in chunks:
        try:
            await ep.recv(peer, 7, np.empty(16, np.uint8))
        except Exception as error:
            errors.append([type(error).__name__, str(error)])
    contents = {peer: [sorted(set(chunk.tolist())) for chunk in chunks[peer]] for peer in chunks}
    return [came, contents, [[m.source, len(m.data), sorted(set(m.data))] for m in texts], errors, len(ep._unclaimed)]

report(engine.call(talk))
engine.stop()
"""
    )
    came, contents, texts, errors, left = run_ranks(3, script).results[0]
    assert came == [5, 6, 7]
    assert contents == {"1": [[1], [2], [3]], "2": [[2], [3], [4]]}
    for rank in (1, 2):
        assert [rest for source, *rest in texts if source == rank] == [[3, [rank]], [5000, [rank]]]
    for peer, (name, message) in zip((2, 1), errors, strict=True):
        assert name == "TransportError"
        assert f"receiving from rank {peer}" in message
    assert left == 0


def test_a_longer_message_than_expected_fails_that_receive_only() -> None:
    script = (
        PREAMBLE
        + """
async def talk():
    if ep.rank == 1:
        await all_of([ep.send(0, 1, np.zeros(64, np.uint8)), ep.send(0, 2, np.ones(8, np.uint8))])
        return None
    good = np.zeros(8, np.uint8)
    bad, fine = ep.recv(1, 1, np.empty(16, np.uint8)), ep.recv(1, 2, good)
    await fine
    try:
        await bad
    except Exception as error:
        return [type(error).__name__, str(error), int(good.sum())]

report(engine.call(talk))
engine.stop()
"""
    )
    name, message, total = run_ranks(2, script).results[0]
    assert (name, total) == ("TransportError", 8)
    assert "rank 0" in message
    assert "receiving from rank 1" in message


def test_a_shorter_message_than_expected_fails_that_receive() -> None:
    script = (
        PREAMBLE
        + """
async def talk():
    if ep.rank == 1:
        await ep.send(0, 1, np.zeros(4, np.uint8))
        return None
    try:
        await ep.recv(1, 1, np.empty(16, np.uint8))
    except Exception as error:
        return [type(error).__name__, str(error)]

report(engine.call(talk))
engine.stop()
"""
    )
    name, message = run_ranks(2, script).results[0]
    assert name == "TransportError"
    assert "4 bytes arrived instead of 16 while receiving from rank 1" in message


def test_timers_polls_and_misuse() -> None:
    script = (
        PREAMBLE
        + """
async def one():
    began = ep.now()
    cancelled = [ep.sleep(1000) for _ in range(500)]
    for timer in cancelled:
        timer.cancel()
    left = len(ep._timers)
    await ep.sleep(0.02)
    slept = ep.now() - began
    countdown = [3]
    def ready():
        countdown[0] -= 1
        return countdown[0] < 0
    await ep.poll(ready, "a count")
    ep.recv_any(9)
    try:
        ep.recv_any(9)
    except RuntimeError as error:
        second = str(error)
    try:
        ep.send(0, 1, np.zeros((4, 4))[:, :2])
    except ValueError as error:
        strided = str(error)
    return [slept >= 0.02, left < 300, second, strided]

report(engine.call(one))
engine.stop()
"""
    )
    slept, pruned, second, strided = run_ranks(1, script, launcher="none").results[0]
    assert slept
    assert pruned
    assert "second recv_any on channel 9" in second
    assert "C-contiguous" in strided


@pytest.mark.parametrize("level", ["multiple", "serialized"])
def test_the_thread_level_asked_for_is_granted(level: str) -> None:
    script = f"""
from hvd_gossip.transport.mpi import load_mpi, thread_level_name
from tests.mpi import report
report(thread_level_name(load_mpi({level!r})))
"""
    assert run_ranks(1, script, launcher="none").results[0] == level.upper()


def test_too_low_a_thread_level_is_an_error_that_says_what_to_do() -> None:
    script = """
import mpi4py
mpi4py.rc.thread_level = "single"
from mpi4py import MPI
from hvd_gossip.transport.mpi import load_mpi
from tests.mpi import report
try:
    load_mpi()
except Exception as error:
    report([type(error).__name__, str(error)])
"""
    name, message = run_ranks(1, script, launcher="none").results[0]
    assert name == "TransportError"
    assert "SERIALIZED" in message
