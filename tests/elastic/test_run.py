"""The loop around a training function, without ranks: what is restored, reset, synchronized, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from hvd_gossip.elastic import notification_manager, run_fn
from hvd_gossip.elastic.state import State
from hvd_gossip.errors import HorovodInternalError, HostsUpdatedInterrupt, WaitTimeoutError


class Recording(State):
    """Writes down what happens to it."""

    def __init__(self) -> None:
        super().__init__(lambda value: value, lambda: 0)
        self.calls: list[str] = []
        self.register_reset_callbacks([lambda: self.calls.append("callback")])

    def save(self) -> None:
        self.calls.append("save")

    def restore(self) -> None:
        self.calls.append("restore")

    def sync(self) -> None:
        self.calls.append("sync")

    def sync_progress(self) -> None:
        self.calls.append("progress")

    def reset(self) -> None:
        self.calls.append("reset")


def play(*outcomes: Any, **options: Any) -> tuple[Recording, Any]:
    """Runs a function that raises or returns these, one a call."""
    state, left = Recording(), list(outcomes)

    def train(given: State, *args: int, scale: int = 1) -> Any:
        assert given is state
        assert notification_manager.is_listening(state)
        state.calls.append("train")
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, args, scale

    wrapped = run_fn(train, lambda: state.calls.append("init"), **options)
    assert wrapped.__name__ == "train"
    try:
        return state, wrapped(state, 1, 2, scale=3)
    finally:
        assert not notification_manager.is_listening(state)
        assert left == [] or "reset_limit" in options


def test_without_trouble_the_state_is_synchronized_and_the_result_returned() -> None:
    state, result = play("done")
    assert state.calls == ["sync", "train"]
    assert result == ("done", (1, 2), 3)


@pytest.mark.parametrize("error", [HorovodInternalError("lost"), WaitTimeoutError("late")])
def test_a_failure_restores_initializes_calls_back_and_synchronizes(error: Exception) -> None:
    """In the order that docs/elastic.rst gives."""
    state, result = play(error, "done")
    assert state.calls == ["sync", "train", "restore", "init", "reset", "callback", "sync", "train"]
    assert result[0] == "done"


def test_an_interrupt_does_not_restore() -> None:
    state, _ = play(HostsUpdatedInterrupt(), "done")
    assert state.calls == ["sync", "train", "init", "reset", "callback", "sync", "train"]


def test_an_interrupt_by_removed_hosts_synchronizes_only_what_workers_did_by_themselves() -> None:
    state, _ = play(HostsUpdatedInterrupt(skip_sync=True), "done")
    assert state.calls == ["sync", "train", "init", "reset", "callback", "progress", "train"]


def test_a_failure_after_such_an_interrupt_synchronizes() -> None:
    state, _ = play(HostsUpdatedInterrupt(skip_sync=True), HorovodInternalError("lost"), "done")
    assert state.calls[-6:] == ["restore", "init", "reset", "callback", "sync", "train"]


def test_a_failure_while_synchronizing_is_one_too() -> None:
    state = Recording()
    failures = [HorovodInternalError("lost")]

    def sync() -> None:
        state.calls.append("sync")
        if failures:
            raise failures.pop()

    state.sync = sync  # type: ignore[method-assign]
    assert run_fn(lambda _: 5, lambda: None)(state) == 5
    assert state.calls == ["sync", "restore", "reset", "callback", "sync"]


def test_other_exceptions_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        play(ZeroDivisionError())


def test_the_reset_limit_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="reset 2 times") as caught:
        play(*[HorovodInternalError("lost")] * 4, reset_limit=2)
    assert isinstance(caught.value.__cause__, HorovodInternalError)
    state, _ = play(HorovodInternalError("lost"), HostsUpdatedInterrupt(), "done", reset_limit=2)
    assert state.calls.count("train") == 3


def test_the_reason_of_a_reset_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    play(HorovodInternalError("rank 3 has failed"), "done")
    assert "reset 1 of the training function: rank 3 has failed" in caplog.text
