"""Ranks as launchers start them, without ours: mpirun of each MPI at hand, with and without other launchers' variables.

What needs MPI runs with the Python beside the launcher: each MPI has an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hvd_gossip.launch.mpirun import Flavour, find_mpirun
from tests.launch.conftest import launchers, python_of
from tests.launch.waiting import LIMIT, TEST_LIMIT

pytestmark = pytest.mark.timeout(TEST_LIMIT)
PLACE = """
    import json, os, sys
    from pathlib import Path
    from hvd_gossip import basics
    from hvd_gossip.errors import LaunchError

    folder = Path(sys.argv[1])
    try:
        basics.init()
        place = [basics.rank(), basics.size(), basics.local_rank(), basics.local_size(), basics.cross_rank(), basics.cross_size()]
        (folder / f"{basics.rank()}.json").write_text(json.dumps(place))
        basics.shutdown()
    except LaunchError as error:
        (folder / f"{os.getpid()}.json").write_text(json.dumps(str(error)))
"""
OTHERS = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "0",
    "WORLD_SIZE": "8",
    "RANK": "0",
    "HOROVOD_CONTROLLER": "mpi",
    "HOROVOD_SIZE": "8",
}
"""Variables that say something else, all around an mpirun: what MPI says holds."""


def started(
    mpirun: str, python: str, n: int, folder: Path, env: Mapping[str, str] | None = None, check: bool = True
) -> list[Any]:
    """Runs the script with a launcher as its manual says; what each process has found."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(PLACE))
    more = [] if find_mpirun(mpirun).flavour is Flavour.MPICH else ["--allow-run-as-root", "--oversubscribe"]
    results = folder / "results"
    results.mkdir()
    environ = os.environ | {"OMP_NUM_THREADS": "1"} | dict(env or {})
    command = [mpirun, *more, "-n", str(n), python, str(script), str(results)]
    subprocess.run(command, env=environ, check=check, capture_output=True, timeout=LIMIT)
    return [json.loads(path.read_text()) for path in sorted(results.iterdir())]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("env", [{}, OTHERS], ids=["alone", "among others' variables"])
def test_plain_mpirun(mpirun: str, n: int, env: Mapping[str, str], tmp_path: Path) -> None:
    places = started(mpirun, python_of(mpirun), n, tmp_path, env)
    assert places == [[rank, n, rank, n, 0, 1] for rank in range(n)]


def pairs() -> list[Any]:
    """Each launcher with the Python of another MPI."""
    paths = launchers()
    mixed = [(one, python_of(other)) for one in paths for other in paths if python_of(one) != python_of(other)]
    return [pytest.param(*pair, id=find_mpirun(pair[0]).flavour.value) for pair in mixed]


@pytest.mark.parametrize(
    ("mpirun_path", "python"),
    pairs() or [pytest.param("", sys.executable, marks=pytest.mark.skip("no second MPI: name one in HVD_TEST_MPIRUN"))],
)
def test_another_mpi_s_launcher_is_an_error_instead_of_many_rank_0s(
    mpirun_path: str, python: str, tmp_path: Path
) -> None:
    """horovod#870, #1756: hvd.size() is 1 everywhere. (Under Open MPI's mpirun MPICH 5 ends by itself, with an error.)"""
    for said in started(mpirun_path, python, 2, tmp_path, check=False):
        assert "each of the 2 would train alone, as rank 0" in said
        assert "hvd-gossip-run -np 2" in said
