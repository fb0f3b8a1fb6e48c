"""How states learn that hosts have come or gone: a driver tells this process, which tells the states that train."""

from __future__ import annotations

import threading
from enum import IntFlag
from typing import Protocol


class HostUpdateResult(IntFlag):
    """What has happened to the set of hosts (Horovod's names and values)."""

    no_update = 0
    removed = 1
    added = 2
    mixed = removed | added


class Listener(Protocol):
    """Who wants to know; `state.State` does."""

    def on_hosts_updated(self, timestamp: float, update_res: HostUpdateResult) -> None:
        """Called on any thread; the update is acted upon later, where the training script can bear it."""


class NotificationManager:
    """Passes a driver's messages on to the listeners. From any thread.

    Attributes:
        driven: whether a driver may send messages. All ranks have the same value while they train: without a driver a state
            asks the other ranks nothing.
    """

    def __init__(self) -> None:
        self.driven = False
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []

    def init(self) -> None:
        """Connects to the driver of this job, if there is one. (There is none yet: hosts are not discovered.)"""

    def register_listener(self, listener: Listener) -> None:
        """From now on the listener is told."""
        with self._lock:
            self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Ends `register_listener`."""
        with self._lock:
            self._listeners = [other for other in self._listeners if other is not listener]

    def is_listening(self, listener: Listener) -> bool:
        """Whether the listener is registered: its training function runs."""
        with self._lock:
            return any(other is listener for other in self._listeners)

    def handle_hosts_updated(self, timestamp: float, update_res: HostUpdateResult) -> None:
        """The driver's message: hosts were added or removed at `timestamp` (seconds, growing from message to message)."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.on_hosts_updated(timestamp, update_res)


notification_manager = NotificationManager()
"""This process's."""
