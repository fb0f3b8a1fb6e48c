"""The end of elastic training: all workers together."""

from __future__ import annotations

from hvd_gossip import runtime
from hvd_gossip.collectives.messages import name_ranks
from hvd_gossip.errors import HorovodInternalError


def finish() -> None:
    """Waits until the training function has returned on all ranks. Meanwhile the others go on without this one.

    Raises:
        HorovodInternalError: a worker has shut down, to begin anew: the others must too.
    """
    if not runtime.is_initialized():
        return
    now = runtime.current()
    joined = now.join_all().ranks
    gone = [rank for rank in range(now.world.size) if rank not in joined]
    if gone:
        raise HorovodInternalError(f"{name_ranks(gone)} left the training function before it had returned everywhere")
