"""Allocations that others made, and Open MPI 4's names for what Open MPI 5 calls otherwise."""

from __future__ import annotations

import pytest

from hvd_gossip.launch.allocation import as_open_mpi_5, is_allocated

OPERATOR = {
    "K_MPI_JOB_ROLE": "launcher",
    "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
    "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
    "OMPI_MCA_orte_set_default_slots": "2",
    "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10",
}
"""What Kubernetes' MPI operator sets in its launcher."""


@pytest.mark.parametrize(
    ("environ", "allocated"),
    [({}, False), ({"SLURM_JOB_ID": "1"}, True), (OPERATOR, True), ({"HYDRA_HOST_FILE": "/etc/mpi/hostfile"}, True)],
)
def test_who_says_where_ranks_run(environ: dict[str, str], allocated: bool) -> None:
    assert is_allocated(environ) is allocated


def test_the_mpi_operator_is_understood_by_open_mpi_5() -> None:
    assert as_open_mpi_5(OPERATOR) == {
        "PRTE_MCA_prte_keep_fqdn_hostnames": "true",
        "PRTE_MCA_prte_default_hostfile": "/etc/mpi/hostfile",
        "PRTE_MCA_prte_set_default_slots": "2",
        "PRTE_MCA_plm_ssh_args": "-o ConnectionAttempts=10",
    }


def test_what_is_said_in_its_own_words_holds() -> None:
    own = {**OPERATOR, "PRTE_MCA_prte_default_hostfile": "/own"}
    assert "PRTE_MCA_prte_default_hostfile" not in as_open_mpi_5(own)
