"""What the launcher says: what there is, what it is about to run, how that ended."""

from __future__ import annotations

import importlib.util
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable

from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.algorithms.table import algorithms_table, render
from hvd_gossip.compat import HOROVOD_VERSION
from hvd_gossip.errors import LaunchError
from hvd_gossip.launch.launcher import LaunchResult
from hvd_gossip.launch.mpirun import find_mpirun, ssh_agent
from hvd_gossip.launch.plan import Plan
from hvd_gossip.topology import TOPOLOGIES
from hvd_gossip.version import __version__

_SHOWN = ("HVD_GOSSIP_", "HOROVOD_", "PYTHONPATH", "PYTHONUNBUFFERED", "PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_IMPORT_TIMEOUT = 300.0


def list_algorithms() -> str:
    """Every algorithm, your own too: what it waits for and needs, its settings, what it is good and bad for, its paper."""
    return render(algorithms_table(ALGORITHMS))


def list_topologies() -> str:
    """Every topology that has a name, in a line each."""
    return "\n".join(["Topologies (--topology):", *(f"  {name:<22} {text}" for name, text in TOPOLOGIES.items())])


def check_build() -> str:
    """Horovod's table of what there is (--check-build): its lines, filled in for this package and this machine."""
    mpi = importlib.util.find_spec("mpi4py") is not None
    boxes = {
        "Available Frameworks": {
            "TensorFlow": _imports("tensorflow"),
            "PyTorch": _imports("torch"),
            "MXNet": False,
        },
        "Available Controllers": {"MPI": mpi, "Gloo": False},
        "Available Tensor Operations": {"NCCL": False, "DDL": False, "CCL": False, "MPI": mpi, "Gloo": False},
    }
    lines = [f"hvd-gossip v{__version__}, with the API of Horovod v{HOROVOD_VERSION}:"]
    for title, rows in boxes.items():
        lines += ["", f"{title}:", *(f"    [{'X' if there else ' '}] {name}" for name, there in rows.items())]
    lines += ["", "Available Algorithms:", *(f"    [X] {name}" for name in ALGORITHMS), "", f"Launcher: {_launcher()}"]
    return "\n".join(lines)


def describe_plan(plan: Plan, program: str) -> str:
    """What --verbose says: the MPI launcher, its command, and the environment of the ranks."""
    shown = {name: text for name, text in sorted(plan.environment.items()) if _is_shown(name)}
    others = [name for name in plan.job.exported if name not in shown]
    return "\n".join(
        [
            f"{program}: {plan.mpirun.flavour.value} ({plan.mpirun.version}), {plan.mpirun.path}",
            f"{program}: {shlex.join(plan.command)}",
            f"{program}: environment of the ranks:",
            *(f"  {name}={text}" for name, text in shown.items()),
            f"  and, unchanged: {' '.join(others)}",
        ]
    )


def describe_failure(result: LaunchResult, plan: Plan) -> list[str]:
    """Which rank failed first, of what, and the end of its output; or who did not start; or what else is known."""
    if result.stopped_by:
        return [f"stopped by {signal.Signals(result.stopped_by).name} after {result.seconds:.1f} s"]
    if result.late:
        return [
            f"{_names(result.missing, plan)} did not start within {plan.start_timeout:g} s. {_advice(result, plan)} "
            "--start-timeout SECONDS waits longer, 0 for ever"
        ]
    first = result.first_failure
    if first is None:
        return _unexplained(result, plan)
    lines = [f"rank {first.rank} on {first.host} failed first, after {first.seconds:.1f} s: {first.cause()}"]
    others = sorted(end.rank for end in result.ends if end.failed and not end.told and end is not first)
    if others:
        lines.append(f"then failed rank{'s' * (len(others) > 1)} {', '.join(map(str, others))}")
    if first.tail:
        lines.append("\n  ".join([f"the end of rank {first.rank}'s output:", *first.tail]))
    return lines


def _unexplained(result: LaunchResult, plan: Plan) -> list[str]:
    lines = [
        f"MPI ended the job with exit code {result.exit_code} after {result.seconds:.1f} s, before any rank's end was "
        "seen; what MPI and the ranks said is above"
    ]
    if result.missing:
        lines.append(f"nothing was heard of {_names(result.missing, plan)}. {_advice(result, plan)}".rstrip())
    return lines


def _names(ranks: Iterable[int], plan: Plan) -> str:
    """ "rank 2", "ranks 2, 3 (node2)": with the hosts that they were to run on, if that was said."""
    numbers = list(ranks)
    hosts = list(dict.fromkeys(filter(None, map(plan.host_of, numbers))))
    return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" + (
        f" ({', '.join(hosts)})" if hosts else ""
    )


def _advice(result: LaunchResult, plan: Plan) -> str:
    if not plan.remote:
        return ""
    host = plan.host_of(result.missing[0]) if result.missing else ""
    agent = ssh_agent(plan.mpirun, plan.job, plan.environment)
    words = [agent, *(plan.job.ssh_args if agent == "ssh" else ()), host or "HOST", "true"]
    return f"Does this work without a question: {shlex.join(words)}? Can that host open connections to this one?"


def _is_shown(name: str) -> bool:
    return name.startswith(_SHOWN) or name.endswith("_THREADS")


def _imports(framework: str) -> bool:
    """Whether this package's module for a framework can be imported; in a process of its own, frameworks being heavy."""
    if importlib.util.find_spec(framework) is None:
        return False
    command = [sys.executable, "-c", f"import hvd_gossip.{framework}"]
    return subprocess.run(command, capture_output=True, timeout=_IMPORT_TIMEOUT, check=False).returncode == 0


def _launcher() -> str:
    try:
        found = find_mpirun()
    except LaunchError as error:
        return f"none: {error}"
    return f"{found.flavour.value} ({found.version}), {found.path}"
