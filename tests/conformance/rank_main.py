"""In a rank: runs a framework's list of cases.

Arguments: the framework's name, the module to test as hvd, and the algorithm, or several, with commas: the list is run under one
after the other, and a case is then called "algorithm: case". With another one than allreduce gradients are not averaged;
everything else that Horovod documents is as it was.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

from tests.conformance.lists import cases_of
from tests.ranks import run_checks


def main(framework: str, module: str, algorithms: str = "allreduce") -> None:
    os.environ["HOROVOD_TIMELINE"] = "DYNAMIC"  # lets a script start one
    several, n = algorithms.split(","), MPI.COMM_WORLD.Get_size()
    choose(several[0])
    hvd = importlib.import_module(module)
    adapter = importlib.import_module(f"tests.conformance.{framework}_framework").make(hvd)
    cases: dict[str, Callable[[], None]] = {}
    for algorithm in several:
        prefix = f"{algorithm}: " if len(several) > 1 else ""
        if cases:
            cases[f"{prefix}begin"] = functools.partial(begin_anew, hvd, algorithm)
        for case in cases_of(framework):
            if case.runs_with(n, algorithm):
                cases[prefix + case.name] = functools.partial(case.body, adapter)
    run_checks(hvd, cases, process_sets="dynamic")


def choose(algorithm: str) -> None:
    """For those cases too that initialize anew."""
    os.environ["HVD_GOSSIP_ALGORITHM"] = algorithm


def begin_anew(hvd: Any, algorithm: str) -> None:
    hvd.shutdown()
    choose(algorithm)
    hvd.init(process_sets="dynamic")


if __name__ == "__main__":
    main(*sys.argv[1:])
