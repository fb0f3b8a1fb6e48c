"""Starts ranks under the MPI that there is: `launch` is hvd-gossip-run as a function."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvd_gossip.launch.agent.options import VARIABLE, Options
from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.plan import Plan, make_plan
from hvd_gossip.launch.reports import RankEnd, ReportServer, first_failure
from hvd_gossip.launch.supervise import Outcome, Patience, Redirect, Supervisor


@dataclass(frozen=True)
class LaunchResult:
    """How a job ended.

    Attributes:
        exit_code: 0 when all went well; else that of the rank that failed first, 128 + the number for a signal.
        ends: the ranks' ends that are known, in their order; a rank that MPI kills outright cannot say it.
        stopped_by: the signal to the launcher that ended the job (Ctrl-C: SIGINT), or None.
        command: what started the MPI launcher.
        seconds: how long the job ran.
    """

    exit_code: int
    ends: tuple[RankEnd, ...]
    stopped_by: int | None
    command: tuple[str, ...]
    seconds: float

    @property
    def first_failure(self) -> RankEnd | None:
        """The rank that failed first, unless the job was stopped from outside."""
        return None if self.stopped_by else first_failure(self.ends)


def launch(
    np: int,
    command: Sequence[str],
    settings: Mapping[str, object] | None = None,
    hosts: Sequence[Host] = (),
    *,
    mpi_args: Sequence[str] = (),
    mpirun: str | None = None,
    environ: Mapping[str, str] = os.environ,
    patience: Patience | None = None,
    end_on_failure: bool = True,
    stdout: Redirect = None,
    stderr: Redirect = None,
) -> LaunchResult:
    """Runs a command on `np` ranks and waits for them; afterwards none of their processes is left.

    Called from the main thread, it passes on SIGINT, SIGTERM and SIGHUP while it waits, instead of raising.

    Args:
        np: number of ranks, at least 1.
        command: a rank's command; one that begins with a .py file is run with this Python.
        settings: settings by name, as for `hvd_gossip.config.load`.
        hosts: where to run; none: this machine, or a resource manager's allocation.
        mpi_args: further arguments of the MPI launcher.
        mpirun: path of the MPI launcher; default: the one beside this Python, else the first on PATH.
        environ: environment that the ranks inherit.
        patience: how long to wait for ranks that shall end.
        end_on_failure: whether one failed rank ends the job, whatever this MPI does of itself.
        stdout, stderr: as for `subprocess.Popen`. Ranks have no input.

    Raises:
        ConfigError: an invalid setting, number of ranks, or command.
        TopologyError: the topology does not exist for so many ranks, or the algorithm cannot use it.
        LaunchError: no MPI launcher that is known.
    """
    plan = make_plan(np, command, settings, hosts, mpi_args, mpirun, environ)
    return execute(plan, patience or Patience(), end_on_failure, stdout, stderr)


def execute(
    plan: Plan,
    patience: Patience,
    end_on_failure: bool = True,
    stdout: Redirect = None,
    stderr: Redirect = None,
) -> LaunchResult:
    """Runs what is planned; see `launch`."""
    started = time.monotonic()
    supervisor = Supervisor(plan.job.np, patience, end_on_failure)
    with ReportServer(plan.remote, supervisor.failed) as agents:
        told = Options(
            agents.addresses,
            agents.token,
            terminals=(_terminal(stdout, 1), _terminal(stderr, 2)),
            terminal_size=_size(),
        )
        environment = {**plan.environment, VARIABLE: told.to_json()}
        outcome = supervisor.run(plan.command, environment, agents, stdout=stdout, stderr=stderr)
    return LaunchResult(
        exit_code=_exit_code(outcome, agents.ends),
        ends=agents.ends,
        stopped_by=outcome.stopped_by,
        command=plan.command,
        seconds=time.monotonic() - started,
    )


def _exit_code(outcome: Outcome, ends: tuple[RankEnd, ...]) -> int:
    if outcome.stopped_by:
        return 128 + outcome.stopped_by
    failure = first_failure(ends)
    if failure is not None:
        return failure.exit_code
    return outcome.returncode if outcome.returncode >= 0 else 128 - outcome.returncode


def _terminal(stream: Redirect, number: int) -> bool:
    """Whether what the ranks write there reaches a terminal."""
    if stream is None:
        return os.isatty(number)
    return stream not in (subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT) and os.isatty(
        stream if isinstance(stream, int) else stream.fileno()
    )


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(2)
    except OSError:  # stderr is no terminal, or closed
        return (24, 80)
    return (size.lines, size.columns)
