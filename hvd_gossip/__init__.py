"""Horovod's API with training algorithms that never wait for the slowest worker. See `hvd_gossip.torch`.

`run` (Horovod's `horovod.run`) calls a function on many ranks.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd_gossip.launch.function import run as run


def __getattr__(name: str) -> object:
    """Imports the launcher when it is asked for: the ranks, which import this package too, have no use for it."""
    if name == "run":
        from hvd_gossip.launch.function import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
