"""States without a framework and without other ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hvd_gossip.elastic import HostUpdateResult, ObjectState, notification_manager
from hvd_gossip.errors import HostsUpdatedInterrupt

ADDED, REMOVED = HostUpdateResult.added, HostUpdateResult.removed


def make(broadcast: Any = lambda value: value, **values: Any) -> Any:
    return ObjectState(broadcast, lambda: 0, **values)


def test_objects_are_attributes() -> None:
    state = make(epoch=3, names=["a"])
    assert (state.epoch, state.names) == (3, ["a"])


def test_restore_goes_back_to_the_last_commit() -> None:
    state = make(epoch=0, batch=0)
    state.epoch, state.batch = 1, 5
    state.commit()
    state.epoch = 2
    state.restore()
    assert (state.epoch, state.batch) == (1, 5)


def test_restore_without_commit_goes_back_to_the_beginning() -> None:
    state = make(losses=[1.0])
    state.losses.append(2.0)
    state.restore()
    assert state.losses == [1.0]


def test_what_is_saved_does_not_change_with_the_object() -> None:
    state = make(losses=[])
    for value in (1, 2):
        state.losses.append(value)
        state.commit()
    state.losses.append(3)
    state.restore()
    state.losses.append(4)
    state.restore()
    assert state.losses == [1, 2]


def test_sync_takes_the_present_values_of_rank_0_and_saves_them() -> None:
    """What was done since the last commit is kept when only the hosts have changed."""
    sent = []

    def broadcast(values: dict[str, int]) -> dict[str, int]:
        sent.append(values)
        return {"epoch": 7}

    state = make(broadcast, epoch=0)
    state.epoch = 4
    state.sync()
    assert sent == [{"epoch": 4}]
    assert state.epoch == 7
    state.epoch = 8
    state.restore()
    assert state.epoch == 7


def test_a_state_of_nothing_sends_nothing() -> None:
    def refuse(_: object) -> None:
        raise AssertionError("nothing to broadcast")

    state = make(refuse)
    state.sync()
    state.commit()


def test_reset_callbacks_are_called_in_order_after_reset() -> None:
    calls = []

    class Own(ObjectState):
        def reset(self) -> None:
            calls.append("reset")

    state = Own(lambda value: value, lambda: 0)
    state.register_reset_callbacks([lambda: calls.append("first")])
    state.register_reset_callbacks([lambda: calls.append("second"), lambda: calls.append("third")])
    state.on_reset()
    assert calls == ["reset", "first", "second", "third"]


@pytest.mark.parametrize(
    ("updates", "skip_sync"),
    [([ADDED], False), ([REMOVED], True), ([REMOVED, ADDED], False), ([REMOVED, REMOVED], True)],
)
@pytest.mark.parametrize("method", ["commit", "check_host_updates"])
def test_an_update_of_the_hosts_interrupts_once(method: str, updates: list[HostUpdateResult], skip_sync: bool) -> None:
    """skip_sync: hosts were only removed (horovod#2514)."""
    state = make(epoch=0)
    for timestamp, update in enumerate(updates, start=1):
        state.on_hosts_updated(timestamp, update)
    with pytest.raises(HostsUpdatedInterrupt) as caught:
        getattr(state, method)()
    assert caught.value.skip_sync is skip_sync
    getattr(state, method)()


def test_an_update_that_is_known_already_does_not_interrupt() -> None:
    state = make()
    state.on_hosts_updated(2, ADDED)
    with pytest.raises(HostsUpdatedInterrupt):
        state.commit()
    state.on_hosts_updated(1, ADDED)
    state.on_hosts_updated(2, ADDED)
    state.commit()


def test_an_interrupted_commit_has_saved() -> None:
    state = make(epoch=0)
    state.epoch = 1
    state.on_hosts_updated(1, ADDED)
    with pytest.raises(HostsUpdatedInterrupt):
        state.commit()
    state.epoch = 2
    state.restore()
    assert state.epoch == 1


def test_updates_before_a_reset_are_forgotten() -> None:
    state = make()
    state.on_hosts_updated(1, ADDED)
    state.on_reset()
    state.commit()


@pytest.fixture
def driven() -> Iterator[None]:
    notification_manager.driven = True
    yield
    notification_manager.driven = False


@pytest.mark.usefixtures("driven")
def test_with_a_driver_all_ranks_raise_what_rank_0_knows() -> None:
    """A message may reach the ranks at different times."""
    told: dict[str, Any] = {"rank 0": None}

    def from_rank_0(value: Any) -> Any:
        if told["rank 0"] is None:
            told["rank 0"] = value
        return told["rank 0"]

    first, second = make(from_rank_0), make(from_rank_0)
    first.on_hosts_updated(5, REMOVED)
    for state in (first, second):
        with pytest.raises(HostsUpdatedInterrupt) as caught:
            state.check_host_updates()
        assert caught.value.skip_sync
    second.on_hosts_updated(5, REMOVED)
    told["rank 0"] = (5, 5, HostUpdateResult.no_update)
    for state in (first, second):
        state.check_host_updates()
