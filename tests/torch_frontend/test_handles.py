"""Handles, poll and synchronize."""

from __future__ import annotations

import pytest
from hvd_gossip.torch.handles import CallableHandle, Handle, poll, synchronize, together

from hvd_gossip.errors import HorovodInternalError


class Operation:
    """An operation that the test completes."""

    def __init__(self) -> None:
        self.complete = False
        self.error: Exception | None = None
        self.waits = 0

    def done(self) -> bool:
        return self.complete

    def wait(self) -> int:
        self.waits += 1
        if self.error is not None:
            raise self.error
        return 20


def test_poll_follows_the_operation() -> None:
    operation = Operation()
    handle = Handle(operation, str)
    assert not poll(handle)
    operation.complete = True
    assert poll(handle)


def test_the_output_is_made_once() -> None:
    operation = Operation()
    handle = Handle(operation, lambda result: [result + 1])
    output = synchronize(handle)
    assert output == [21]
    assert synchronize(handle) is output
    assert poll(handle)
    assert operation.waits == 1


def test_errors_are_raised_every_time() -> None:
    operation = Operation()
    operation.error = HorovodInternalError("rank 1 is gone")
    handle = Handle(operation, str)
    for _ in range(2):
        with pytest.raises(HorovodInternalError, match="rank 1 is gone"):
            synchronize(handle)


def test_handles_can_be_chained() -> None:
    inner = Handle(Operation(), lambda result: result + 1)
    assert synchronize(Handle(inner, str)) == "21"


def test_other_things_are_no_handles() -> None:
    with pytest.raises(TypeError, match="not NoneType"):
        poll(None)  # type: ignore[arg-type]


def test_a_group_is_done_when_all_of_it_is() -> None:
    one, other = Operation(), Operation()
    handle = together([Handle(one, str), Handle(other, str)])
    one.complete = True
    assert not poll(handle)
    other.complete = True
    assert poll(handle)
    assert synchronize(handle) == ["20", "20"]
    assert synchronize(handle) == ["20", "20"]
    assert (one.waits, other.waits) == (1, 1)


def test_an_empty_group_is_done() -> None:
    handle = together([])
    assert poll(handle)
    assert synchronize(handle) == []


def test_some_handles_can_be_called() -> None:
    handle = CallableHandle(Operation(), str)
    assert handle() == synchronize(handle) == "20"


def test_members_of_a_group_that_are_one_operation_wait_for_it_once() -> None:
    """Small tensors travel as one, whose handle each of them has."""
    packed, alone = Operation(), Operation()
    handle = together([packed, alone, packed, packed])
    packed.complete = True
    assert not poll(handle)
    alone.complete = True
    assert poll(handle)
    assert synchronize(handle) == [20] * 4
    assert (packed.waits, alone.waits) == (1, 1)
