"""Stall warnings and time-outs on a clock that the test moves."""

import logging

import pytest

from hvd_gossip.errors import HorovodInternalError, WaitTimeoutError
from hvd_gossip.observe.waits import StallWatch, WaitLimits, bounded_wait
from hvd_gossip.tasks import Future, Scheduler


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def wait_until(seconds: float, limits: WaitLimits, caplog: pytest.LogCaptureFixture) -> list[float]:
    """Waits on a clock that jumps to each deadline; returns when (after the start) the waits were cut."""
    clock = Clock()
    cuts = []

    def wait(timeout: float) -> bool:
        clock.now = min(clock.now + timeout, 100.0 + seconds)
        cuts.append(clock.now - 100.0)
        return clock.now - 100.0 >= seconds

    with caplog.at_level(logging.WARNING, "hvd_gossip"):
        bounded_wait(wait, 2, lambda: "recv from rank 5", limits, clock)
    return cuts


def test_short_wait_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert wait_until(59, WaitLimits(60, 1800), caplog) == [59]
    assert caplog.records == []


def test_long_wait_warns_at_doubling_times_then_says_that_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    cuts = wait_until(300, WaitLimits(60, 1800), caplog)
    assert cuts == [60, 120, 240, 300]
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(" s for")[0] for message in messages[:3]] == [
        "rank 2 has waited 60", "rank 2 has waited 120", "rank 2 has waited 240",
    ]  # fmt: skip
    assert all("recv from rank 5" in message and "1800 s" in message for message in messages[:3])
    assert messages[3:] == ["rank 2 goes on after 300 s of waiting for: recv from rank 5"]


def test_time_out_names_who_and_what(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WaitTimeoutError, match=r"rank 2 gave up after 100 s of waiting for: recv from rank 5\."):
        wait_until(1e9, WaitLimits(60, 100), caplog)
    assert len(caplog.records) == 1
    assert issubclass(WaitTimeoutError, HorovodInternalError)


def test_check_time_0_never_warns_but_the_wait_still_ends(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WaitTimeoutError):
        wait_until(1e9, WaitLimits(0, 100), caplog)
    assert caplog.records == []


def test_late_check_warns_once_and_keeps_the_doubling(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    watch = StallWatch(0, lambda: "anything", WaitLimits(10, 1000), clock)
    clock.now += 55
    with caplog.at_level(logging.WARNING, "hvd_gossip"):
        watch.check()
        watch.check()
    assert len(caplog.records) == 1
    assert watch.seconds_left() == 80 - 55


def test_seconds_left_is_never_negative() -> None:
    clock = Clock()
    watch = StallWatch(0, lambda: "anything", WaitLimits(10, 1000), clock)
    clock.now += 10_000
    assert watch.seconds_left() == 0


def test_describes_only_for_a_message() -> None:
    def fail() -> str:
        raise AssertionError("formatted without need")

    clock = Clock()
    watch = StallWatch(0, fail, WaitLimits(10, 1000), clock)
    clock.now += 9.9
    watch.check()
    watch.done()


def test_text_of_a_task_names_the_peer_it_waits_for_at_that_moment(caplog: pytest.LogCaptureFixture) -> None:
    received: Future[None] = Future(("recv from rank", 5))
    acknowledged: Future[None] = Future(("acknowledgement of rank", 6))

    async def exchange() -> None:
        await received
        await acknowledged

    scheduler = Scheduler()
    task = scheduler.spawn(exchange())
    clock = Clock()
    watch = StallWatch(0, task.waiting_for, WaitLimits(10, 1000), clock)
    with caplog.at_level(logging.WARNING, "hvd_gossip"):
        for until in (10, 20):
            while scheduler.run_ready():
                pass
            clock.now = 100.0 + until
            watch.check()
            received.set_result(None)
    assert len(caplog.records) == 2
    assert "recv from rank 5" in caplog.records[0].getMessage()
    assert "acknowledgement of rank 6" in caplog.records[1].getMessage()
    acknowledged.set_result(None)
    scheduler.run_ready()
