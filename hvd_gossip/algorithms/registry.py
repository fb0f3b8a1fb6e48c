"""All algorithms by name. Adding one is a file and a line here."""

from __future__ import annotations

import difflib

from hvd_gossip.algorithms.adpsgd import ADPSGD
from hvd_gossip.algorithms.allreduce import AllReduce
from hvd_gossip.algorithms.base import Algorithm
from hvd_gossip.algorithms.dpsgd import DPSGD
from hvd_gossip.algorithms.sgp import SGP
from hvd_gossip.errors import ConfigError

ALGORITHMS: dict[str, type[Algorithm]] = {cls.name: cls for cls in (AllReduce, DPSGD, ADPSGD, SGP)}


def find_algorithm(name: str) -> type[Algorithm]:
    """The class registered under a name.

    Raises:
        ConfigError: there is none; the message lists those that exist.
    """
    if name not in ALGORITHMS:
        close = difflib.get_close_matches(name, ALGORITHMS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"unknown algorithm {name!r}{hint}: expected one of {', '.join(sorted(ALGORITHMS))}")
    return ALGORITHMS[name]
