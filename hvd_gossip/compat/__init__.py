"""Makes `import horovod` and everything below it resolve to this package.

Two ways that end in the same modules: `SHADOW`, a folder with a package called horovod, first on PYTHONPATH (the
launcher's way: it holds for every Python below), and `install()` for this process (`python -m hvd_gossip`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hvd_gossip.compat.finder import HorovodFinder
from hvd_gossip.version import __version__

SHADOW = str(Path(__file__).parent / "shadow")
"""Folder that holds the package `horovod`."""
HOROVOD_VERSION = "0.28.1"
"""Release of Horovod whose documented API this package follows."""
VERSION = f"{HOROVOD_VERSION}+hvd.gossip.{__version__.replace('+', '.').replace('-', '.')}"
"""What `horovod.__version__` says: that release, with a local part (PEP 440) that says who answers."""


def install() -> None:
    """From now on `import horovod` means this package: in this process and in those that it starts. Idempotent."""
    register()
    if SHADOW not in sys.path:
        sys.path.insert(1, SHADOW)  # where PYTHONPATH puts it: after the script's own folder
    os.environ["PYTHONPATH"] = prepend_path(SHADOW, os.environ.get("PYTHONPATH"))


def register() -> None:
    """Puts the finder of horovod's modules before every other."""
    if not any(isinstance(finder, HorovodFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, HorovodFinder(SHADOW))


def prepend_path(folder: str, path: str | None) -> str:
    """A search path (PYTHONPATH, PATH) that begins with `folder` and has it once."""
    others = [entry for entry in path.split(os.pathsep) if entry != folder] if path else []
    return os.pathsep.join([folder, *others])
