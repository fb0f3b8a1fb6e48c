"""The MPI launchers that tests of real launches run under: the one found, and those that HVD_TEST_MPIRUN names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hvd_gossip.launch.mpirun import find_mpirun


def launchers() -> list[str]:
    """Paths, the found one first; HVD_TEST_MPIRUN=PATH:PATH adds others, such as MPICH's."""
    others = os.environ.get("HVD_TEST_MPIRUN", "").split(os.pathsep)
    return [find_mpirun().path, *filter(None, others)]


def python_of(mpirun: str) -> str:
    """The Python whose mpi4py belongs to a launcher: the one beside it, or this one."""
    beside = Path(mpirun).with_name("python")
    return str(beside) if beside.exists() else sys.executable


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "mpirun" in metafunc.fixturenames:
        paths = launchers()
        metafunc.parametrize("mpirun", paths, ids=[find_mpirun(path).flavour.value for path in paths])
