"""Processes that would train alone though several were started: who is refused, who is warned, who may go on."""

from __future__ import annotations

import logging

import pytest

from hvd_gossip.errors import LaunchError
from hvd_gossip.world.surroundings import check_not_alone, refuse_gloo
from tests.mpi import run_ranks

GLOO = {
    "HOROVOD_CONTROLLER": "gloo",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1",
    "HOROVOD_GLOO_RENDEZVOUS_PORT": "4711",
    "HOROVOD_RANK": "1",
    "HOROVOD_SIZE": "4",
}
STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
INIT = """
    from hvd_gossip import basics as hvd
    from hvd_gossip.errors import LaunchError
    from tests.mpi import report

    try:
        hvd.init()
        report([hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size(), hvd.cross_rank(), hvd.cross_size()])
    except LaunchError as error:
        report(str(error))
"""


@pytest.mark.parametrize(
    ("environ", "who", "advice"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4, from Open MPI's mpirun", "mpi4py loads"),
        ({"PMI_SIZE": "4", "PMI_RANK": "0"}, "PMI_SIZE=4, from MPICH's mpiexec", "Open MPI wants --mpi=pmix"),
        ({"JSM_NAMESPACE_SIZE": "4"}, "JSM_NAMESPACE_SIZE=4, from jsrun", "hvd-gossip-run -np 4"),
        (STEP, "SLURM_STEP_NUM_TASKS=4, from srun", "srun --mpi=pmi2 for MPICH"),
        ({**STEP, "PMIX_RANK": "2"}, "SLURM_STEP_NUM_TASKS=4, from srun", "unset SLURM_STEP_NUM_TASKS"),
        (TORCHRUN, "WORLD_SIZE=2, from torchrun", "There is no MPI in that"),
    ],
)
def test_one_of_several_that_is_alone_is_refused(environ: dict[str, str], who: str, advice: str) -> None:
    with pytest.raises(LaunchError) as raised:
        check_not_alone(1, "Some MPI 1.2", environ)
    assert who in str(raised.value)
    assert "but MPI (Some MPI 1.2) sees this process only" in str(raised.value)
    assert advice in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "who"),
    [
        (BATCH, "SLURM_NTASKS=4, from a Slurm allocation"),
        ({"WORLD_SIZE": "8", "RANK": "3"}, "WORLD_SIZE=8, from whoever set WORLD_SIZE"),
    ],
)
def test_where_it_may_be_meant_it_is_warned(
    environ: dict[str, str], who: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hvd_gossip"):
        check_not_alone(1, "Some MPI 1.2", environ)
    assert who in caplog.text
    assert "trains alone" in caplog.text


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
        {"WORLD_SIZE": "8"},
        {"WORLD_SIZE": "many", "RANK": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1", **STEP},  # mpirun -n 1 in a Slurm job: its daemons are tasks of a step
        {"PMI_SIZE": "1", **TORCHRUN},
    ],
)
def test_alone_as_intended(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    check_not_alone(1, "Some MPI 1.2", environ)
    assert not caplog.records


@pytest.mark.parametrize("environ", [STEP, TORCHRUN, {"OMPI_COMM_WORLD_SIZE": "7"}])
def test_whoever_is_not_alone_goes_on(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    check_not_alone(4, "Some MPI 1.2", environ)
    assert not caplog.records


@pytest.mark.parametrize("change", [{}, {"HOROVOD_SIZE": "1", "HOROVOD_ELASTIC": "1"}])
def test_horovods_gloo_mode_is_refused_with_the_flag_to_use(change: dict[str, str]) -> None:
    with pytest.raises(LaunchError, match=r"Gloo mode .* horovodrun --mpi -np \d python train.py"):
        refuse_gloo({**GLOO, **change})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOROVOD_SIZE": "4", "HOROVOD_CONTROLLER": "mpi"},
        {**GLOO, "HOROVOD_SIZE": "1"},
        {**GLOO, "OMPI_COMM_WORLD_SIZE": "4"},  # left over, above an mpirun
    ],
)
def test_anything_else_is_no_gloo_mode(environ: dict[str, str]) -> None:
    refuse_gloo(environ)


def test_a_script_under_horovods_gloo_mode_ends_with_that_error_before_mpi_starts() -> None:
    source = INIT + "\n    import sys; assert 'mpi4py.MPI' not in sys.modules"
    (said,) = run_ranks(1, source, launcher="none", env=GLOO).in_rank_order() or [""]
    assert said.startswith("Horovod's launcher started this process in its Gloo mode")


def test_a_script_under_srun_without_mpi_ends_with_that_error() -> None:
    results = run_ranks(1, INIT, launcher="none", env=STEP).results
    (said,) = results.values()
    assert said.startswith("SLURM_STEP_NUM_TASKS=4, from srun, but MPI (")


def test_ranks_under_mpirun_inside_a_slurm_step_are_what_mpi_says() -> None:
    """horovod#1038: mpirun in a batch script of Slurm."""
    assert run_ranks(2, INIT, env=STEP).in_rank_order() == [[rank, 2, rank, 2, 0, 1] for rank in range(2)]
    assert run_ranks(1, INIT, env=STEP).in_rank_order() == [[0, 1, 0, 1, 0, 1]]
