"""In a rank: runs a framework's list of cases.

Arguments: the framework's name, the module to test as hvd, and the algorithm. With another one than allreduce gradients are
not averaged; everything else that Horovod documents is as it was.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys

from mpi4py import MPI

from tests.conformance.lists import cases_of
from tests.ranks import run_checks


def main(framework: str, module: str, algorithm: str = "allreduce") -> None:
    os.environ["HOROVOD_TIMELINE"] = "DYNAMIC"  # lets a script start one
    os.environ["HVD_GOSSIP_ALGORITHM"] = algorithm  # for those cases too that initialize anew
    hvd = importlib.import_module(module)
    adapter = importlib.import_module(f"tests.conformance.{framework}_framework").make(hvd)
    n = MPI.COMM_WORLD.Get_size()
    chosen = [case for case in cases_of(framework) if case.runs_with(n, algorithm)]
    cases = {case.name: functools.partial(case.body, adapter) for case in chosen}
    run_checks(hvd, cases, process_sets="dynamic")


if __name__ == "__main__":
    main(*sys.argv[1:])
