"""The helper that runs real ranks: what it reports, and that nothing outlives it."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.mpi import RanksError, run_ranks

EXCHANGE = """
    import sys
    import numpy as np
    from mpi4py import MPI
    from tests.mpi import report

    world = MPI.COMM_WORLD
    total = np.zeros(1)
    world.Allreduce(np.ones(1) * world.rank, total)
    print(f"argument {sys.argv[1]}")
    report({"rank": world.rank, "size": world.size, "total": total})
"""


@pytest.mark.parametrize("n", [1, 3])
def test_every_rank_reports(n: int) -> None:
    done = run_ranks(n, EXCHANGE, args=["--x"])
    expected = [{"rank": rank, "size": n, "total": [n * (n - 1) / 2]} for rank in range(n)]
    assert done.in_rank_order() == expected
    assert done.stdout.count("argument --x") == n


def test_a_script_without_launcher_is_one_rank() -> None:
    assert run_ranks(1, EXCHANGE, args=["y"], launcher="none").results == {0: {"rank": 0, "size": 1, "total": [0.0]}}


def test_environment_reaches_the_ranks() -> None:
    source = "import os; from tests.mpi import report; report([os.environ['WORD'], os.environ['OMP_NUM_THREADS']])"
    assert run_ranks(2, source, env={"WORD": "heard"}).in_rank_order() == [["heard", "1"]] * 2


def test_a_failing_rank_fails_the_run_with_its_output() -> None:
    source = "import sys; print('last words', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RanksError, match="exit status 3"):
        run_ranks(1, source)
    done = run_ranks(2, source, check=False)
    assert done.returncode == 3
    assert "last words" in done.stderr


def test_time_out_shows_the_stacks_and_kills_the_ranks() -> None:
    source = """
        import time
        def waits_for_ever():
            time.sleep(3600)
        waits_for_ever()
    """
    for timeout in (2.0, 10.0, 30.0):  # on a busy machine they may not have begun to wait by then
        with pytest.raises(RanksError, match=f"not done after {timeout} s") as caught:
            run_ranks(2, source, timeout=timeout)
        if "in waits_for_ever" in str(caught.value):
            return
    raise AssertionError(str(caught.value))


def test_a_process_that_outlives_its_rank_is_found_and_killed() -> None:
    marker = f"orphan-{time.monotonic_ns()}"
    source = f"""
        import subprocess, sys
        code = "import time; time.sleep(3600)"
        null = subprocess.DEVNULL
        subprocess.Popen([sys.executable, "-c", code, "{marker}"], stdout=null, stderr=null, start_new_session=True)
    """
    with pytest.raises(RanksError, match=marker):
        run_ranks(1, source, launcher="none", grace=0.5)
    assert not [process for process in psutil.process_iter(["cmdline"]) if marker in (process.info["cmdline"] or [])]
