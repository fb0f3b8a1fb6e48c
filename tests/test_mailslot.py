"""The engine's command queue: order, waiting, and time-outs so short that they are over before the wait begins."""

import threading
from queue import Empty

import pytest

from hvd_gossip.mailslot import MailSlot


def test_items_come_in_order() -> None:
    slot: MailSlot[int] = MailSlot()
    for item in range(3):
        slot.put(item)
    assert not slot.empty()
    assert [slot.get(None), slot.get(0), slot.get(5.0)] == [0, 1, 2]
    assert slot.empty()


def test_nothing_comes_in_time() -> None:
    slot: MailSlot[int] = MailSlot()
    with pytest.raises(Empty):
        slot.get(0)
    with pytest.raises(Empty):
        slot.get(0.001)


def test_item_of_another_thread_ends_an_endless_wait() -> None:
    slot: MailSlot[str] = MailSlot()
    slot.put("first")
    slot.get(None)  # leaves the signal given: the next wait must not end without an item
    threading.Timer(0.05, slot.put, ["second"]).start()
    assert slot.get(None) == "second"


def test_many_writers_lose_nothing() -> None:
    slot: MailSlot[tuple[int, int]] = MailSlot()
    writers = [
        threading.Thread(target=lambda me=me: [slot.put((me, number)) for number in range(2000)]) for me in range(4)
    ]
    for writer in writers:
        writer.start()
    got = [slot.get(30.0) if not slot.empty() else slot.get(None) for _ in range(8000)]
    for writer in writers:
        writer.join()
    assert sorted(got) == [(me, number) for me in range(4) for number in range(2000)]
    assert [number for me, number in got if me == 0] == list(range(2000))
    assert slot.empty()


def test_time_out_that_is_over_at_once_ends() -> None:
    """`queue.SimpleQueue` hangs here after some thousand rounds."""
    slot: MailSlot[int] = MailSlot()
    rounds = []

    def read() -> None:
        for number in range(100_000):
            try:
                slot.get(1e-9)
            except Empty:
                slot.put(number)
        rounds.append(100_000)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(50)
    assert rounds == [100_000]
