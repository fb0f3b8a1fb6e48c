"""In a rank: runs a framework's list of cases. Arguments: the framework's name, and the module to test as hvd."""

from __future__ import annotations

import functools
import importlib
import os
import sys

from mpi4py import MPI

from tests.conformance.lists import cases_of
from tests.ranks import run_checks


def main(framework: str, module: str) -> None:
    os.environ["HOROVOD_TIMELINE"] = "DYNAMIC"  # lets a script start one
    hvd = importlib.import_module(module)
    adapter = importlib.import_module(f"tests.conformance.{framework}_framework").make(hvd)
    n = MPI.COMM_WORLD.Get_size()
    cases = {case.name: functools.partial(case.body, adapter) for case in cases_of(framework) if case.runs_with(n)}
    run_checks(hvd, cases, process_sets="dynamic")


if __name__ == "__main__":
    main(*sys.argv[1:])
