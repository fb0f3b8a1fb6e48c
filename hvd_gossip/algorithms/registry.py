"""All algorithms by name: ours, and those that other packages register under the entry point group GROUP.

Adding one of ours is a file and a line here. A user's own is a class in a package whose metadata says

    [project.entry-points."hvd_gossip.algorithms"]
    mine = "my_package:MyAlgorithm"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from hvd_gossip.algorithms.acid import ACID
from hvd_gossip.algorithms.adpsgd import ADPSGD
from hvd_gossip.algorithms.agp import AGP
from hvd_gossip.algorithms.allreduce import AllReduce
from hvd_gossip.algorithms.asgd import ASGD
from hvd_gossip.algorithms.asysg_incon import AsySGIncon
from hvd_gossip.algorithms.base import Algorithm, Context
from hvd_gossip.algorithms.choco import Choco
from hvd_gossip.algorithms.d2 import D2
from hvd_gossip.algorithms.dpsgd import DPSGD
from hvd_gossip.algorithms.gradient_tracking import GradientTracking
from hvd_gossip.algorithms.local import LocalSGD
from hvd_gossip.algorithms.osgp import OSGP
from hvd_gossip.algorithms.outer import Outer
from hvd_gossip.algorithms.qg_dsgdm import QGDSGDm
from hvd_gossip.algorithms.relaysgd import RelaySGD
from hvd_gossip.algorithms.sgp import SGP
from hvd_gossip.errors import ConfigError
from hvd_gossip.setting import did_you_mean

GROUP = "hvd_gossip.algorithms"
AUTO = "auto"
"""No algorithm: `hvd_gossip.choice` chooses one in the first steps."""
OWN: tuple[type[Algorithm], ...] = (
    AllReduce,
    DPSGD,
    ADPSGD,
    ACID,
    SGP,
    OSGP,
    AGP,
    ASGD,
    AsySGIncon,
    D2,
    GradientTracking,
    QGDSGDm,
    LocalSGD,
    Choco,
    RelaySGD,
)


def _load(point: EntryPoint) -> type[Algorithm]:
    """The class that an entry point names.

    Raises:
        ConfigError: it cannot be imported, or is no algorithm, or not of that name.
    """
    where = f"entry point {point.name!r} of group {GROUP!r} ({point.value})"
    try:
        kind = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where} cannot be loaded: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Algorithm)):
        raise ConfigError(f"{where} is no subclass of hvd_gossip.algorithms.base.Algorithm")
    if kind.name != point.name:
        raise ConfigError(f"{where} names its class {point.name!r}, which calls itself {kind.name!r}")
    return kind


def _collect() -> dict[str, type[Algorithm]]:
    algorithms = {kind.name: kind for kind in OWN}
    for point in entry_points(group=GROUP):
        if point.name in algorithms:
            raise ConfigError(f"entry point {point.name!r} ({point.value}): there is an algorithm of that name already")
        algorithms[point.name] = _load(point)
    return algorithms


ALGORITHMS: dict[str, type[Algorithm]] = _collect()


def find_algorithm(name: str) -> type[Algorithm]:
    """The class registered under a name.

    Raises:
        ConfigError: there is none; the message lists those that exist.
    """
    if name == AUTO:
        raise ConfigError("algorithm 'auto' chooses for a whole run: say it at init or with --algorithm, nowhere else")
    if name not in ALGORITHMS:
        hint = did_you_mean(name, ALGORITHMS)
        raise ConfigError(f"unknown algorithm {name!r}.{hint} Valid: {', '.join(sorted(ALGORITHMS))}")
    return ALGORITHMS[name]


def make_algorithm(kind: type[Algorithm], context: Context) -> Algorithm:
    """An algorithm, under the outer step that the settings ask for."""
    algorithm = kind(context)
    return algorithm if context.settings.outer == "none" else Outer(context, algorithm)
