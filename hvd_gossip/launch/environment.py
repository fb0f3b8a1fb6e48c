"""The environment of the ranks: this one, the settings, and what makes `import horovod` mean this package."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from hvd_gossip import config
from hvd_gossip.compat import SHADOW, prepend_path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
"""Where numerical libraries read how many threads to compute with; OMP_NUM_THREADS is the one that most respect."""

_MPI_PROCESS = ("PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK")
_MPI_OWN = re.compile(r"(PMIX|PRTE|PMI|HYDI|MPI_LOCAL|OMPI_(?!ALLOW_RUN_AS_ROOT))")
_OF_ONE_MACHINE = re.compile(
    r"_|HOST|HOSTNAME|HOME|USER|LOGNAME|SHELL|SHLVL|PWD|OLDPWD|MAIL|TERM|DISPLAY|TMPDIR|TMP|TEMP|LS_COLORS|PS1"
    r"|(SSH|XDG|DBUS|SLURM|PBS|LSB|KUBERNETES|PMIX|PMI|PRTE|HYDI)_.*|OMPI_(?!MCA_).*"
)
_NAME = re.compile(r"[A-Za-z_]\w*")


def rank_environment(
    settings: Mapping[str, object], threads: int, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment in which ranks start.

    Args:
        settings: settings by name, as for `config.to_environ`; with threads_per_rank > 0, that overrides variables.
        threads: threads a rank where neither the settings nor a variable say how many.
        environ: what they inherit.
    """
    inherited = {name: text for name, text in environ.items() if not (_nested(environ) and _MPI_OWN.match(name))}
    environment = inherited | config.to_environ(settings) | _threads(settings, threads, inherited)
    environment["PYTHONPATH"] = prepend_path(SHADOW, inherited.get("PYTHONPATH"))
    environment.setdefault("PYTHONUNBUFFERED", "1")  # what is printed shall be seen, and not be lost with a killed rank
    environment["PATH"] = _path(inherited.get("PATH", os.defpath))
    return environment


def exported_names(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The variables that ranks on other hosts need as well: all but those that describe one machine or one login."""
    names = (name for name in environment if _NAME.fullmatch(name))
    return tuple(sorted(name for name in names if not _OF_ONE_MACHINE.fullmatch(name)))


def _nested(environ: Mapping[str, str]) -> bool:
    """Whether this process is a rank itself: what MPI told it must not reach ranks of another job."""
    return any(name in environ for name in _MPI_PROCESS)


def _threads(settings: Mapping[str, object], threads: int, environ: Mapping[str, str]) -> dict[str, str]:
    asked = settings.get("threads_per_rank")
    if asked:
        return dict.fromkeys(THREAD_VARIABLES, str(asked))
    default = environ.get("OMP_NUM_THREADS") or str(threads)
    return {name: environ.get(name) or default for name in THREAD_VARIABLES}


def _path(path: str) -> str:
    """PATH with this Python's folder, so that `python` is this one even when its environment is not activated."""
    own = str(Path(sys.executable).parent)
    return path if own in path.split(os.pathsep) else prepend_path(own, path)
