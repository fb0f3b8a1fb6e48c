"""Horovod's name, answered by hvd-gossip: `horovod.torch` is `hvd_gossip.torch`, and so on.

This folder is first on PYTHONPATH under hvd-gossip's launcher only; elsewhere `import horovod` is what it always was.
"""

import sys

try:
    from hvd_gossip import compat
except ImportError as error:
    raise ImportError(
        f"hvd-gossip's launcher answers for Horovod here, but {sys.executable} has no hvd_gossip: install it there, or "
        f"have the launcher start the Python that has it"
    ) from error

__version__ = compat.VERSION
compat.register()


def __getattr__(name: str) -> object:
    if name == "run":
        from hvd_gossip.launch.function import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
