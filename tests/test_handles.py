"""Waiting for operations under way."""

from __future__ import annotations

import pytest

from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.handles import wait_for_all


class Operation:
    """Gives its number, or raises an error."""

    def __init__(self, number: int, error: Exception | None = None) -> None:
        self.number = number
        self.error = error
        self.waits = 0

    def wait(self) -> int:
        self.waits += 1
        if self.error is not None:
            raise self.error
        return self.number


def test_results_come_in_order() -> None:
    assert wait_for_all([Operation(3), Operation(1), Operation(2)]) == [3, 1, 2]
    assert wait_for_all([]) == []


def test_a_failure_is_raised_when_nothing_is_under_way_any_more() -> None:
    errors = [None, HorovodInternalError("shapes differ"), HorovodInternalError("the second one"), None]
    operations = [Operation(*pair) for pair in enumerate(errors)]
    with pytest.raises(HorovodInternalError, match="shapes differ"):
        wait_for_all(operations)
    assert [operation.waits for operation in operations] == [1, 1, 1, 1]


def test_a_time_out_is_raised_at_once() -> None:
    operations = [Operation(0), Operation(1, WaitTimeoutError("rank 2 is late")), Operation(2)]
    with pytest.raises(WaitTimeoutError, match="rank 2 is late"):
        wait_for_all(operations)
    assert operations[2].waits == 0
