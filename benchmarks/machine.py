"""On what a benchmark ran: versions and hardware, without names of machines, people or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.job import ROOT
from hvd_gossip.launch.mpirun import find_mpirun
from hvd_gossip.version import __version__

PACKAGES = ("torch", "numpy", "mpi4py")


def describe_machine() -> dict[str, Any]:
    """What the results depend on."""
    mpirun = find_mpirun()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hvd_gossip": __version__,
        "revision": _revision(),
        "python": platform.python_version(),
        "mpi": f"{mpirun.flavour.value} ({mpirun.version})",
        **{package: _version(package) for package in PACKAGES},
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_class() -> str:
    """A few words for the name of a folder: system, architecture, cores."""
    return f"{platform.system().lower()}-{platform.machine().lower()}-{cores()}-cores"


def default_folder(quick: bool = False) -> Path:
    """Where results go: one folder a day and class of machine; quick ones have their own."""
    name = f"{time.strftime('%Y-%m-%d')}-{machine_class()}"
    return ROOT / "benchmarks" / "results" / (f"quick-{name}" if quick else name)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The commit that the sources are of, with a + if they were changed since; None outside of a repository."""
    try:
        commit = _git("rev-parse", "--short", "HEAD").strip()
        changed = _git("status", "--porcelain", "--", "hvd_gossip", "frameworks", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.strip() else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _processor() -> str | None:
    """The model's name, where Linux says it."""
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return found and found[1]
