"""Hosts that somebody else has chosen: resource managers' allocations, and Kubernetes' MPI operator."""

from __future__ import annotations

from collections.abc import Mapping

_ALLOCATIONS = (
    *("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "PE_HOSTFILE"),  # resource managers
    *("OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile", "HYDRA_HOST_FILE"),  # the MPI operator
)
_OPEN_MPI_5 = {
    "OMPI_MCA_orte_default_hostfile": "PRTE_MCA_prte_default_hostfile",
    "OMPI_MCA_orte_keep_fqdn_hostnames": "PRTE_MCA_prte_keep_fqdn_hostnames",
    "OMPI_MCA_orte_set_default_slots": "PRTE_MCA_prte_set_default_slots",
    "OMPI_MCA_plm_rsh_agent": "PRTE_MCA_plm_ssh_agent",
    "OMPI_MCA_plm_rsh_args": "PRTE_MCA_plm_ssh_args",
}
"""What the MPI operator sets are Open MPI 4's variables, which Open MPI 5 ignores without a word: by its own names."""


def is_allocated(environ: Mapping[str, str]) -> bool:
    """Whether somebody else says where ranks run; the limits are theirs."""
    return any(name in environ for name in _ALLOCATIONS)


def as_open_mpi_5(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of Open MPI 4 that say where and how to start ranks, by Open MPI 5's names where those are not set."""
    return {new: environ[old] for old, new in _OPEN_MPI_5.items() if old in environ and new not in environ}
