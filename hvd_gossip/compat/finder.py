"""Finds horovod's modules among this package's own: horovod.torch is hvd_gossip.torch, the same module object.

One object, because a module holds state (handles, the runtime): a script may import one name and a library the other.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, spec_from_loader
from types import ModuleType

FRAMEWORKS = {
    "horovod.torch": "hvd_gossip.torch",
    "horovod.tensorflow": "hvd_gossip.tensorflow",
    "horovod.keras": "hvd_gossip.tensorflow.keras",
}
"""What lies elsewhere under which name; what is below goes with it."""
PARTS_OF_FRAMEWORK = ("compression", "functions", "mpi_ops", "optimizer", "sync_batch_norm")
"""Horovod's modules in a framework whose public names the framework has too: where we have no such module, it is that."""


class HorovodFinder(MetaPathFinder):
    """Finds `horovod` in a folder, and what is below it there or in hvd_gossip.

    Args:
        shadow: folder that holds the package `horovod`.
    """

    def __init__(self, shadow: str) -> None:
        self._shadow = shadow

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As the import system asks.

        Raises:
            ModuleNotFoundError: neither place has it; the message says what there is.
        """
        if fullname.partition(".")[0] != "horovod":
            return None
        framework = ".".join(fullname.split(".")[:2])
        if framework not in FRAMEWORKS:
            found = PathFinder.find_spec(fullname, [self._shadow] if path is None else path)
        else:
            found = _alias(fullname, framework)
        if found is not None:
            return found
        raise ModuleNotFoundError(_missing(fullname, path), name=fullname)


class _Alias(Loader):
    """Gives a module of ours a second name."""

    def __init__(self, ours: str) -> None:
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._ours)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import system has just put the alias's there


def _alias(fullname: str, framework: str) -> ModuleSpec | None:
    """Where our module of this name is; never a search of its folder, which would load a second copy of it."""
    ours = FRAMEWORKS[framework] + fullname.removeprefix(framework)
    if find_spec(ours) is not None:
        return spec_from_loader(fullname, _Alias(ours))
    if fullname.removeprefix(framework + ".") in PARTS_OF_FRAMEWORK:
        return spec_from_loader(fullname, _Alias(FRAMEWORKS[framework]))
    return None


def _missing(fullname: str, path: Sequence[str] | None) -> str:
    parent = fullname.rpartition(".")[0]
    there = {f"{parent}.{module.name}" for module in pkgutil.iter_modules(path) if not module.name.startswith("_")}
    there |= set(FRAMEWORKS) if parent == "horovod" else set()
    return (
        f"No module named {fullname!r}. hvd-gossip answers for Horovod here and has, below {parent}: "
        f"{', '.join(sorted(there)) or 'nothing'}."
    )
