"""Which test runs beside which when pytest-xdist shares them among processes (`make test` does, with three).

Tests in the simulator keep one core busy. Launches of real ranks bring processes of their own and often wait, so that
other tests fit beside them. There are three lines of launches, in each of which one comes after the other: TensorFlow's, which
take longest and have time-outs to match, PyTorch's, and all others.
"""

from __future__ import annotations

import functools
import re

from xdist.scheduler import LoadScopeScheduling

from tests.mpi import ROOT

LAUNCHES, TORCH, TENSORFLOW = "launches", "launches of PyTorch", "launches of TensorFlow"
"""The scopes of modules that start processes: each goes to one process of the tests."""
STARTS = re.compile(r"\b(assert_passed|hvd-gossip-run|mpirun|Popen|run_ranks|subprocess|tests\.compat)\b")

IS_TENSORFLOW = re.compile(r"tensorflow|keras", re.IGNORECASE)
IS_TORCH = re.compile(r"torch")


@functools.cache
def scope(module: str) -> str:
    """What is run in one process, in order: a test module, whose tests may share a launch, or a line of launches.

    Args:
        module: the path of a test module, relative to the repository.
    """
    text = (ROOT / module).read_text()
    if not STARTS.search(text):
        return module
    if IS_TENSORFLOW.search(module + text):
        return TENSORFLOW
    return TORCH if IS_TORCH.search(module + text) else LAUNCHES


class LinesOfLaunches(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out whole scopes, those with the most tests first."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid.partition("::")[0])
