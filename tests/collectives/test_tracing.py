"""What is told to a timeline: the names, and that phases follow each other without a gap or an overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvd_gossip.collectives import Collectives, Request
from hvd_gossip.collectives.executor import Operation
from hvd_gossip.collectives.request import Signature
from hvd_gossip.collectives.tracing import Tracer
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.collectives.cluster import Cluster


class Part:
    def __init__(self, signature: Signature) -> None:
        self.signature = signature


class Told:
    """A tracer at a time of the test's own, and what it tells."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[tuple[str, str, float, float | None]] = []
        self.tracer = Tracer(lambda *event: self.events.append(event), lambda: self.now)


def signature(kind: Any = "allreduce", name: str = "x", process_set: int = 0) -> Signature:
    return Request(name, kind, np.zeros(3), process_set=process_set).signature()


def operation(*parts: Signature, since: float, started: float, ready: float = 0.0) -> Operation:
    made = Operation(0, [Part(one) for one in parts], (0, 1), (), 2, since)  # type: ignore[misc]
    made.started, made.ready = started, ready
    return made


def test_a_negotiation_begins_ticks_and_ends() -> None:
    told = Told()
    told.tracer.began(signature(), 1.0)
    told.now = 2.0
    told.tracer.ready(signature(), 3)
    told.now = 4.0
    told.tracer.negotiated(signature(), 1.0)
    assert told.events == [
        ("x", "NEGOTIATE_ALLREDUCE", 1.0, None),
        ("x", "3", 2.0, 2.0),
        ("x", "NEGOTIATE_ALLREDUCE", 1.0, 4.0),
    ]


@pytest.mark.parametrize("kind", ["allreduce", "alltoall"])
def test_horovod_736_a_long_negotiation_shows_for_whom_it_waited(kind: Any) -> None:
    """horovod#736, #1454, #2391, #2464: NEGOTIATE_... took most of the time, and what it was spent on was not to be seen."""
    told: list[tuple[str, str, float, float | None]] = []
    cluster = Cluster(3, world=SimulatedWorld(3), trace=lambda *event: told.append(event))

    async def main(rank: int, collectives: Collectives) -> None:
        await cluster.endpoints[rank].sleep(2.0 if rank == 1 else 0.0)
        await collectives.submit(Request("x", kind, np.ones(3)))

    cluster.run(main)
    ticks = {name: start for _, name, start, _ in told if name in ("0", "1", "2")}
    negotiated = max(end - start for _, name, start, end in told if name == f"NEGOTIATE_{kind.upper()}" and end)
    carried_out = max(end - start for _, name, start, end in told if name == kind.upper() and end is not None)
    assert max(ticks["0"], ticks["2"]) < 0.1
    assert ticks["1"] == pytest.approx(2.0, abs=0.1)
    assert negotiated == pytest.approx(2.0, abs=0.1)
    assert carried_out < 0.1


@pytest.mark.parametrize(
    ("kind", "transfer"),
    [
        ("allreduce", "MPI_ALLREDUCE"),
        ("broadcast", "MPI_BCAST"),
        ("allgather", "MPI_ALLGATHER"),
        ("alltoall", "MPI_ALLTOALL"),
    ],
)
def test_a_transfer_is_queue_and_transfer_of_every_tensor_that_it_serves(kind: str, transfer: str) -> None:
    told = Told()
    told.now = 5.0
    told.tracer.transferred(operation(signature(kind, "a"), signature(kind, "b"), since=1.0, started=2.0))
    expected = [(kind.upper(), 1.0, 5.0), ("QUEUE", 1.0, 2.0), (transfer, 2.0, 5.0)]
    assert told.events == [(name, *event) for name in "ab" for event in expected]


def test_waiting_for_the_device_lies_between() -> None:
    told = Told()
    told.now = 5.0
    told.tracer.transferred(operation(signature(), since=1.0, started=2.0, ready=4.0))
    assert [event[1:] for event in told.events[1:]] == [
        ("QUEUE", 1.0, 2.0),
        ("WAIT_FOR_DATA", 2.0, 4.0),
        ("MPI_ALLREDUCE", 4.0, 5.0),
    ]


def test_a_transfer_that_was_given_up_in_the_queue_has_only_that() -> None:
    told = Told()
    told.now = 5.0
    told.tracer.transferred(operation(signature(), since=1.0, started=0.0))
    assert [event[1:] for event in told.events] == [
        ("ALLREDUCE", 1.0, 5.0),
        ("QUEUE", 1.0, 5.0),
        ("MPI_ALLREDUCE", 5.0, 5.0),
    ]


def test_process_sets_have_rows_of_their_own() -> None:
    told = Told()
    told.tracer.answered(signature("broadcast", process_set=2), 0.0)
    assert told.events == [("x (process set 2)", "BROADCAST", 0.0, 0.0)]


def test_a_cycle_belongs_to_no_tensor() -> None:
    told = Told()
    told.now = 3.0
    told.tracer.cycle()
    assert told.events == [("", "CYCLE_START", 3.0, 3.0)]
