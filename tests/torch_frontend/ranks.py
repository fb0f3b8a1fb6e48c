"""Runs this folder's files of `check_...` functions in real ranks, many files in one launch: importing PyTorch takes seconds.

See `tests.ranks`. The files of a launch are run one after the other, each between an `init` and a `shutdown` of its own; one
whose turn did not come, because a check of an earlier one failed, is run alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests import ranks, torch_device
from tests.mpi import Completed
from tests.ranks import RANKS as RANKS

FOLDER = Path(__file__).parent
MAIN = FOLDER / "rank_main.py"
TOGETHER: Mapping[int, Sequence[Sequence[str]]] = {
    1: [("averaging", "averaging_tools", "mixing", "model_mean")],
    2: [("accum_adam", "wrapper")],
    3: [
        (
            "adasum",
            "averaging",
            "averaging_tools",
            "elastic",
            "elastic_sampler",
            "full_norm",
            "gather_ops",
            "meeting_ops",
        ),
        (
            "functions",
            "mixing",
            "model_mean",
            "process_sets",
            "reduce_ops",
            "regressions",
            "sampler",
            "scatter_ops",
            "sparse",
            "sync_batch_norm",
        ),
    ],
}
"""By number of ranks: which `check_....py` share a launch, unless its checks go through all algorithms."""
PREFIX = "CHECKS_PREFIX"
"""The global variable of a file that says what its checks are called beside others'."""
SECONDS = 300.0
"""For all checks of such a launch."""
_collected: set[str] = set()


def checks_in(file: str) -> list[str]:
    """The names of the checks that a file defines, in order; the file is not imported.

    A file that was asked for is in its launch: who runs one test module alone waits for its checks only.
    """
    _collected.add(file)
    return ranks.checks_in(FOLDER / file)


def assert_passed(file: str, check: str, n: int, timeout: float = 55.0, every: bool = False) -> None:
    """Asserts that a check passed on all of `n` ranks."""
    files = () if every or n > max(TOGETHER) else _launched_with(file, n)
    names = {f"{file}: {check}", *(f"{file}: {name}" for name in checks_in(file))}
    if len(files) > 1 and _had_its_turn(names, ranks.outcomes(MAIN, n, SECONDS, *files)):
        ranks.assert_passed(MAIN, f"{file}: {check}", n, SECONDS, *files)
    else:
        ranks.assert_passed(FOLDER / file, check, n, timeout, algorithms=ALGORITHMS if every else None)


def _launched_with(file: str, n: int) -> tuple[str, ...]:
    """The collected files that share a launch with this one, itself among them; none if it has its own."""
    launches = [[f"check_{name}.py" for name in launch] for launch in TOGETHER[n]]
    return next((tuple(sorted(_collected.intersection(launch))) for launch in launches if file in launch), ())


def _had_its_turn(names: set[str], done: Completed) -> bool:
    return any(names & set(results) for results in done.results.values())


def outcomes(file: str, n: int, timeout: float) -> Completed:
    """What each rank reported of each check. One launch for all tests of a file."""
    return ranks.outcomes(FOLDER / file, n, timeout)


def run_checks(namespace: Mapping[str, Any], *, default_device: bool = True, **settings: Any) -> None:
    """In a rank: runs the checks and reports. For the end of a file of checks.

    Args:
        default_device: whether tensors are on `torch_device.DEVICE` unless a check says otherwise.
        settings: arguments of `init`.
    """
    import hvd_gossip.torch as hvd

    torch_device.use(default_device)
    prefix = namespace.get(PREFIX, "")
    checks = {f"{prefix}{name}": check for name, check in namespace.items() if name.startswith("check_")}
    ranks.run_checks(hvd, checks, **settings)


if __name__ == "__main__":
    sys.exit("this file is imported by files of checks")
