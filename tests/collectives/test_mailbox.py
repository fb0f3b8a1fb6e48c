"""Control messages: one receiver, and no message lost from sight."""

from __future__ import annotations

from hvd_gossip.collectives.mailbox import Mailbox
from hvd_gossip.transport.endpoint import Message
from hvd_gossip.transport.simulated import SimulatedWorld


class Bench:
    def __init__(self, size: int) -> None:
        self.world = SimulatedWorld(size, eager_limit=10)
        self.received: list[list[Message]] = [[] for _ in range(size)]
        self.lost: list[tuple[int, int]] = []
        self.boxes = [self._box(rank) for rank in range(size)]

    def _box(self, rank: int) -> Mailbox:
        box = Mailbox(
            self.world.endpoints[rank],
            self.received[rank].append,
            lambda peer, error: self.lost.append((rank, peer)),
        )
        box.start()
        return box


def test_messages_of_any_length_come_in_the_order_sent() -> None:
    bench = Bench(3)
    for length in (1, 100, 3, 0, 50):
        bench.boxes[0].send(2, b"a" * length)
        bench.boxes[1].send(2, b"b" * length)
    bench.world.run(lambda: len(bench.received[2]) == 10)
    for source in (0, 1):
        assert [len(data) for sender, data in bench.received[2] if sender == source] == [1, 100, 3, 0, 50]


def test_counts_what_is_not_sent_yet() -> None:
    bench = Bench(2)
    for _ in range(3):
        bench.boxes[0].send(1, b"more than ten bytes")
    assert bench.boxes[0].outstanding == 3
    bench.world.run([bench.boxes[0].sent.wait()])
    assert bench.boxes[0].outstanding == 2
    bench.world.run(lambda: bench.boxes[0].outstanding == 0)


def test_a_message_that_cannot_be_delivered_names_its_receiver() -> None:
    bench = Bench(2)
    bench.boxes[0].send(1, b"more than ten bytes")
    bench.world.kill(1)
    bench.world.run(lambda: bool(bench.lost))
    bench.boxes[0].send(1, b"later")
    assert bench.lost == [(0, 1), (0, 1)]
    assert bench.boxes[0].outstanding == 0


def test_stop() -> None:
    bench = Bench(2)
    for box in bench.boxes:
        box.stop()
    bench.world.run()
