"""Who started this process, by the variables that launchers set, and whether MPI sees as many processes as they say.

A process whose launcher and MPI library do not fit believes that it is alone: MPI starts it as a job of one, and it would
train by itself, as rank 0, beside others that do the same. Horovod's users meet this often (horovod#307, #870, #1646).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from hvd_gossip.errors import LaunchError

OWN_WAY = "hvd-gossip-run -np {size} python train.py"
_log = logging.getLogger("hvd_gossip")


@dataclass(frozen=True)
class Launcher:
    """A program that starts several processes and says how many.

    Attributes:
        name: what it is called.
        size: its variable for the number of processes.
        advice: how to start them instead; {size} is their number.
        sign: a further variable without which `size` may mean something else; empty: none is needed.
        certain: whether the variables are there in such processes only; else a process alone is warned of, not refused.
    """

    name: str
    size: str
    advice: str
    sign: str = ""
    certain: bool = True

    def processes(self, environ: Mapping[str, str]) -> int:
        """How many it started; 0 if it did not start this process."""
        text = environ.get(self.size, "")
        return int(text) if text.isdecimal() and (not self.sign or self.sign in environ) else 0


_OTHER_MPI = (
    "They belong to different MPI implementations. Start the ranks with the launcher of the library that mpi4py loads "
    f"(`python -m mpi4py --mpi-lib-version` names it), or let {OWN_WAY} find it"
)
MPI_LAUNCHERS = (
    Launcher("Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", _OTHER_MPI),
    Launcher("MPICH's mpiexec or srun --mpi=pmi2", "PMI_SIZE", f"{_OTHER_MPI}. Under srun, Open MPI wants --mpi=pmix"),
    Launcher("MVAPICH's mpirun", "MV2_COMM_WORLD_SIZE", _OTHER_MPI),
    Launcher("jsrun", "JSM_NAMESPACE_SIZE", _OTHER_MPI),
    Launcher("flux run", "FLUX_JOB_SIZE", _OTHER_MPI),
)
"""What these say holds: whoever else is mentioned in the environment has started them, not the ranks."""

OTHER_LAUNCHERS = (
    Launcher(
        "srun",
        "SLURM_STEP_NUM_TASKS",
        "Say which PMI this MPI library talks: srun --mpi=pmix for Open MPI, srun --mpi=pmi2 for MPICH (srun --mpi=list "
        f"shows what Slurm has); or, inside the allocation, {OWN_WAY}. For runs that shall be independent of each "
        "other, unset SLURM_STEP_NUM_TASKS",
    ),
    Launcher("torchrun", "WORLD_SIZE", f"There is no MPI in that: use {OWN_WAY}", sign="TORCHELASTIC_RUN_ID"),
    Launcher(
        "a Slurm allocation",
        "SLURM_NTASKS",
        f"To train on all of its tasks: srun --mpi=pmix python train.py, or {OWN_WAY}",
        certain=False,
    ),
    Launcher("whoever set WORLD_SIZE", "WORLD_SIZE", f"Ranks need MPI: {OWN_WAY}", sign="RANK", certain=False),
)


def refuse_gloo(environ: Mapping[str, str] = os.environ) -> None:
    """Refuses to start under Horovod's Gloo launcher, whose processes have no MPI to meet through; before MPI starts.

    Raises:
        LaunchError: it started this process as one of several.
    """
    if "HOROVOD_GLOO_RENDEZVOUS_ADDR" not in environ or any(one.processes(environ) for one in MPI_LAUNCHERS):
        return
    size = environ.get("HOROVOD_SIZE", "")
    if size == "1" and environ.get("HOROVOD_ELASTIC") != "1":
        return
    size = size or "N"
    raise LaunchError(
        f"Horovod's launcher started this process in its Gloo mode (HOROVOD_GLOO_RENDEZVOUS_ADDR is set, HOROVOD_SIZE="
        f"{size}), and hvd-gossip's ranks meet through MPI: each would train alone. Start them with "
        f"{OWN_WAY.format(size=size)}; with Horovod's own launcher, horovodrun --mpi -np {size} python train.py"
    )


def check_not_alone(processes: int, library: str, environ: Mapping[str, str] = os.environ) -> None:
    """Compares what MPI sees with what the launcher says. Called once MPI runs.

    Args:
        processes: the number of processes in MPI's COMM_WORLD.
        library: the name of the MPI library, for the message.

    Raises:
        LaunchError: MPI sees this process only, and the launcher started several. Where the variables may be there for
            another reason, a warning is logged instead.
    """
    if processes > 1:
        return
    by_mpi = [one for one in MPI_LAUNCHERS if one.processes(environ)]
    for launcher in by_mpi or OTHER_LAUNCHERS:
        size = launcher.processes(environ)
        if size > 1:
            _complain(launcher, size, library)
            return


def _complain(launcher: Launcher, size: int, library: str) -> None:
    seen = f"{launcher.size}={size}, from {launcher.name}, but MPI ({library}) sees this process only"
    advice = launcher.advice.format(size=size)
    if launcher.certain:
        raise LaunchError(f"{seen}: each of the {size} would train alone, as rank 0. {advice}.")
    _log.warning("%s, which trains alone. %s.", seen, advice)
