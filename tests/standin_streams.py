"""The streams of the stand-in for CuPy: lists of work, executed when somebody looks or in the order that a test asks for."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np

Order = Literal["late", "training first", "engine first", "random", "at once"]
"""When work is executed beside looks at it: never, as soon as it is enqueued on some of the streams, at random, or at once."""
ORDERS: tuple[Order, ...] = ("late", "training first", "engine first", "random")
Kind = Literal["training", "engine", "null"]


class Queue:
    """The work of a stream, in order."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.work: deque[Callable[[], object]] = deque()
        self.executed = self.enqueued = 0
        MACHINE.queues.append(self)

    def put(self, work: Callable[[], object]) -> None:
        self.work.append(work)
        self.enqueued += 1
        MACHINE.go_on(self)

    def run(self, position: int) -> None:
        """Executes what was enqueued up to a position."""
        if self.executed < min(position, self.enqueued):
            with np.errstate(all="ignore"):
                while self.executed < min(position, self.enqueued):
                    self.work.popleft()()
                    self.executed += 1


class Machine:
    """All that is global: the thread that runs, the streams, memory that is free, and the order of execution."""

    def __init__(self) -> None:
        self.clear()

    def clear(self, order: Order = "late", seed: int = 0, pieces_per_look: int = 1) -> None:
        """As new.

        Args:
            pieces_per_look: so much of its stream's work is executed at each look at an event.
        """
        self.order = order
        self.pieces_per_look = pieces_per_look
        self.queues: list[Queue] = []
        self.streams: dict[int, Queue] = {}
        self.free: dict[tuple[Queue, int], list[np.ndarray]] = {}
        self.random = random.Random(seed)
        self.used: list[int] = []
        self.thread: Thread | None = None

    def go_on(self, queue: Queue) -> None:
        """Something was enqueued."""
        if self.order == "at once" or self.order == f"{queue.kind} first":
            queue.run(queue.enqueued)
        elif self.order == "random":
            for _ in range(self.random.randrange(4)):
                chosen = self.random.choice(self.queues)
                chosen.run(chosen.executed + 1)


MACHINE = Machine()


class Event:
    """What had been enqueued on a stream when it was recorded."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.position = queue, queue.enqueued

    @property
    def done(self) -> bool:
        self.queue.run(min(self.position, self.queue.executed + MACHINE.pieces_per_look))
        return self.queue.executed >= self.position


class BaseStream:
    """A stream that is there already.

    Args:
        pointer: its number, in place of the raw cudaStream_t.
    """

    def __init__(self, pointer: int, device: int) -> None:
        self.ptr = pointer
        self.queue = MACHINE.streams[pointer]

    def synchronize(self) -> None:
        self.queue.run(self.queue.enqueued)

    def wait_event(self, event: Event) -> None:
        self.queue.put(lambda: event.queue.run(event.position))

    def record(self) -> Event:
        return Event(self.queue)

    def use(self) -> None:
        running().stream = self

    def __enter__(self) -> BaseStream:
        thread = running()
        thread.outer.append(thread.stream)
        thread.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        thread = running()
        thread.stream = thread.outer.pop()


class Stream(BaseStream):
    """A new stream."""

    def __init__(self, non_blocking: bool = False, kind: Kind = "engine") -> None:
        pointer = len(MACHINE.streams) + 1
        MACHINE.streams[pointer] = Queue(kind)
        super().__init__(pointer, 0)


class ExternalStream(BaseStream):
    """As CuPy's, which must not be made by calling it: that warns."""

    def __init__(self, pointer: int) -> None:
        raise DeprecationWarning("Use Stream.from_external() instead")


class Thread:
    """A thread of some rank's, and the stream that is current on it: at first one that nobody waits for."""

    def __init__(self, stream: BaseStream | None = None) -> None:
        self.stream = stream or Stream(kind="null")
        self.outer: list[BaseStream] = []


@contextmanager
def acting(thread: Thread) -> Iterator[None]:
    """What is enqueued inside, is enqueued by this thread."""
    before, MACHINE.thread = MACHINE.thread, thread
    try:
        yield
    finally:
        MACHINE.thread = before


def running() -> Thread:
    assert MACHINE.thread is not None, "something is computed on the device outside of all threads"
    return MACHINE.thread
