"""The state of a training run: what is kept to go back to, and what all workers must agree on (Horovod's classes)."""

from __future__ import annotations

import copy
import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hvd_gossip import runtime
from hvd_gossip.elastic.notifications import HostUpdateResult, notification_manager
from hvd_gossip.errors import HorovodInternalError, HostsUpdatedInterrupt

Broadcast = Callable[[Any], Any]
"""Gives every rank the object of rank 0."""


class State(ABC):
    """In memory, what training goes on from after a failure or a change of workers. Subclasses say how.

    Args:
        bcast_object: gives every rank rank 0's object.
        get_rank: gives this worker's rank.
    """

    def __init__(self, bcast_object: Broadcast, get_rank: Callable[[], int]) -> None:
        self._bcast_object = bcast_object
        self._rank = get_rank
        self._host_messages: queue.SimpleQueue[tuple[float, HostUpdateResult]] = queue.SimpleQueue()
        self._last_updated_timestamp = 0.0
        self._reset_callbacks: list[Callable[[], None]] = []

    def register_reset_callbacks(self, callbacks: Iterable[Callable[[], None]]) -> None:
        """Adds functions without arguments that are called after each reset, before the state is synchronized: to scale the
        learning rate to the new number of workers, say."""
        self._reset_callbacks.extend(callbacks)

    def on_reset(self) -> None:
        """Called when hvd-gossip was initialized anew; calls `reset()` and the callbacks."""
        self._host_messages = queue.SimpleQueue()
        self.reset()
        for callback in self._reset_callbacks:
            callback()

    def on_hosts_updated(self, timestamp: float, update_res: HostUpdateResult) -> None:
        """The set of hosts has changed; the next `commit()` or `check_host_updates()` acts on it. From any thread."""
        self._host_messages.put((timestamp, update_res))

    def commit(self) -> None:
        """Saves the state, to be restored if a worker fails, and checks for changes of the set of hosts.

        Saving copies the whole state: how often it is worth while is a matter of what a failure may cost.

        Raises:
            HostsUpdatedInterrupt, HorovodInternalError: see `check_host_updates`.
        """
        self.save()
        self.check_host_updates()

    def check_host_updates(self) -> None:
        """Raises if training must begin anew with another set of workers. All workers call it at the same places.

        It waits for the other ranks only if a driver watches the hosts.

        Raises:
            HostsUpdatedInterrupt: hosts came or went; on all ranks at once.
            HorovodInternalError: a worker has left the training function, after a failure, for a new start.
        """
        previous = newest = self._last_updated_timestamp
        update = HostUpdateResult.no_update
        while not self._host_messages.empty():
            timestamp, result = self._host_messages.get()
            if timestamp > newest:
                newest = timestamp
                update |= result
        if notification_manager.driven:
            previous, newest, update = self._bcast_object((previous, newest, update))
        self._last_updated_timestamp = newest
        if newest > previous:
            raise HostsUpdatedInterrupt(skip_sync=update == HostUpdateResult.removed)
        # Last: who knows of the change need not go back because another has begun anew already.
        self._check_departures()

    def _check_departures(self) -> None:
        """Neighbours of a gossip algorithm go on without a worker that is gone; here they learn that it waits for them."""
        if runtime.is_initialized() and notification_manager.is_listening(self):
            gone = runtime.current().collectives.describe_gone()
            if gone:
                raise HorovodInternalError(f"{gone}, to begin anew: the training function cannot go on without")

    @abstractmethod
    def save(self) -> None:
        """Copies the state in memory."""

    @abstractmethod
    def restore(self) -> None:
        """Goes back to what was saved last."""

    @abstractmethod
    def sync(self) -> None:
        """Gives every rank rank 0's state. A collective."""

    def sync_progress(self) -> None:
        """In place of `sync` when workers have left and none has come: everybody has the same state already, except for
        what each has done by itself. A collective. Nothing, by default."""

    def reset(self) -> None:
        """Called when the workers have changed, before the callbacks. Nothing, by default."""


class ObjectState(State):
    """A state of Python objects, which are its attributes. They are broadcast pickled.

    Args:
        bcast_object, get_rank: see State.
        kwargs: names and first values: `ObjectState(..., epoch=0)` has `state.epoch`.
    """

    def __init__(self, bcast_object: Broadcast, get_rank: Callable[[], int], **kwargs: Any) -> None:
        super().__init__(bcast_object, get_rank)
        self._saved_state: dict[str, Any] = copy.deepcopy(kwargs)
        self._assign(kwargs)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def save(self) -> None:
        self._saved_state = copy.deepcopy(self._values())

    def restore(self) -> None:
        self._assign(copy.deepcopy(self._saved_state))

    def sync(self) -> None:
        # The present values: what was done since the last commit is not undone when hosts come or go.
        if self._saved_state:
            self._assign(self._bcast_object(self._values()))
            self._saved_state = copy.deepcopy(self._values())

    def _assign(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._saved_state}
