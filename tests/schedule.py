"""Which test runs beside which when pytest-xdist shares them among processes (`make test` does, with two).

Tests in the simulator keep one core busy. Launches of real ranks bring processes of their own and often wait, so that
one core's worth of other tests fits beside them, but not a second launch: both would pass their time-outs.
"""

from __future__ import annotations

import functools
import re

from xdist.scheduler import LoadScopeScheduling

from tests.mpi import ROOT

LAUNCHES = "launches"
"""The scope of all modules that start ranks: it goes to one process."""
STARTS = re.compile(r"\b(assert_passed|hvd-gossip-run|mpirun|Popen|run_ranks|subprocess|tests\.compat)\b")


@functools.cache
def scope(module: str) -> str:
    """What is run in one process, in order: a test module, whose tests may share a launch, or all that start processes.

    Args:
        module: the path of a test module, relative to the repository.
    """
    return LAUNCHES if STARTS.search((ROOT / module).read_text()) else module


class OneLaunchAtATime(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out whole scopes, the one with the most tests first: that is `LAUNCHES`."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid.partition("::")[0])
