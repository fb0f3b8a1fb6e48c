"""Who is told of changes of the hosts."""

from __future__ import annotations

from hvd_gossip.elastic import HostUpdateResult, NotificationManager


class Recorder:
    def __init__(self) -> None:
        self.heard: list[tuple[float, HostUpdateResult]] = []

    def on_hosts_updated(self, timestamp: float, update_res: HostUpdateResult) -> None:
        self.heard.append((timestamp, update_res))


def test_listeners_hear_while_they_are_registered() -> None:
    manager, first, second = NotificationManager(), Recorder(), Recorder()
    manager.init()
    manager.register_listener(first)
    manager.handle_hosts_updated(1, HostUpdateResult.added)
    manager.register_listener(second)
    manager.handle_hosts_updated(2, HostUpdateResult.removed)
    manager.remove_listener(first)
    manager.handle_hosts_updated(3, HostUpdateResult.mixed)
    assert first.heard == [(1, HostUpdateResult.added), (2, HostUpdateResult.removed)]
    assert second.heard == [(2, HostUpdateResult.removed), (3, HostUpdateResult.mixed)]
    assert not manager.is_listening(first)
    assert manager.is_listening(second)


def test_a_listener_that_equals_another_is_not_that_one() -> None:
    class Equal(Recorder):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    manager, first, second = NotificationManager(), Equal(), Equal()
    manager.register_listener(first)
    assert not manager.is_listening(second)
    manager.remove_listener(second)
    assert manager.is_listening(first)


def test_results_of_updates_add_up_as_horovod_s_do() -> None:
    assert HostUpdateResult.removed | HostUpdateResult.added == HostUpdateResult.mixed
    assert [int(one) for one in (HostUpdateResult.no_update, HostUpdateResult.removed)] == [0, 1]
    assert [int(one) for one in (HostUpdateResult.added, HostUpdateResult.mixed)] == [2, 3]
