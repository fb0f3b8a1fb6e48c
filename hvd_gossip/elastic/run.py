"""The loop around a training function that begins anew from the last commit."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from hvd_gossip import runtime
from hvd_gossip.elastic.finish import finish
from hvd_gossip.elastic.notifications import notification_manager
from hvd_gossip.elastic.state import State
from hvd_gossip.errors import HorovodInternalError, HostsUpdatedInterrupt
from hvd_gossip.objects import allgather_object

R = TypeVar("R")
_log = logging.getLogger("hvd_gossip")


def run_fn(func: Callable[..., R], reset: Callable[[], object], reset_limit: int | None = None) -> Callable[..., R]:
    """Wraps `func(state, *args, **kwargs)` so that it is called again after failures and changes of the workers.

    The state is synchronized before each call. HorovodInternalError (a worker or a collective failed) restores the last
    commit; HostsUpdatedInterrupt keeps the state as it is. Both then reset, call the state's callbacks, and begin anew.
    Any other exception passes through. A worker whose function has returned waits for the others', because one that
    failed needs all of them.

    Args:
        func: the training function; its first argument is a `State`.
        reset: shuts down and initializes anew, on every rank.
        reset_limit: so many resets are made, then RuntimeError is raised; 0 is no limit. Default: the setting of that name.

    Returns:
        The wrapped function, of the same arguments and result.
    """

    @functools.wraps(func)
    def wrapper(state: State, *args: Any, **kwargs: Any) -> R:
        limit, resets, skip_sync = _limit(reset_limit), 0, False
        notification_manager.init()
        notification_manager.register_listener(state)
        try:
            while True:
                cause: HorovodInternalError | HostsUpdatedInterrupt
                try:
                    if _all_may_skip(skip_sync):
                        state.sync_progress()
                    else:
                        state.sync()
                    result = func(state, *args, **kwargs)
                    finish()
                    return result
                except HorovodInternalError as error:
                    cause, skip_sync = error, False
                    state.restore()
                except HostsUpdatedInterrupt as interrupt:
                    cause, skip_sync = interrupt, interrupt.skip_sync
                resets += 1
                if limit and resets > limit:
                    raise RuntimeError(f"training was reset {limit} times, as often as reset_limit allows") from cause
                _log.warning("reset %d of the training function: %s", resets, cause)
                reset()
                state.on_reset()
        finally:
            notification_manager.remove_listener(state)

    return wrapper


def _all_may_skip(skip_sync: bool) -> bool:
    """Whether all workers have what they need. One that is new, or has gone back, needs rank 0's state: all take part then."""
    return all(allgather_object(skip_sync)) if runtime.is_initialized() else skip_sync


def _limit(given: int | None) -> int:
    if given is not None:
        return given
    return runtime.current().config.reset_limit if runtime.is_initialized() else 0
