"""Starts ranks under the MPI that there is: `launch(make_plan(...))` is hvd-gossip-run as a function."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hvd_gossip.launch.agent.options import VARIABLE, Options
from hvd_gossip.launch.mpirun import session_folder_variable
from hvd_gossip.launch.plan import Plan
from hvd_gossip.launch.reports import RankEnd, ReportServer, first_failure
from hvd_gossip.launch.supervise import Outcome, Patience, Redirect, Supervisor

NOT_STARTED = 1
"""Exit code of a job whose ranks did not all start in time."""


@dataclass(frozen=True)
class LaunchResult:
    """How a job ended.

    Attributes:
        exit_code: 0 when all went well; else that of the rank that failed first, 128 + the number for a signal; where ranks
            only ended as they were told to, MPI's own.
        ends: the ranks' ends that are known, in their order; a rank that MPI kills outright cannot say it.
        stopped_by: the signal to the launcher that ended the job (Ctrl-C: SIGINT), or None.
        missing: the ranks that were never heard of.
        late: the job was ended because they did not start in time.
        command: what started the MPI launcher.
        seconds: how long the job ran.
    """

    exit_code: int
    ends: tuple[RankEnd, ...]
    stopped_by: int | None
    command: tuple[str, ...]
    seconds: float
    missing: tuple[int, ...] = ()
    late: bool = False

    @property
    def first_failure(self) -> RankEnd | None:
        """The rank that failed first, unless the job was stopped from outside."""
        return None if self.stopped_by else first_failure(self.ends)


def launch(
    plan: Plan,
    patience: Patience | None = None,
    end_on_failure: bool = True,
    stdout: Redirect = None,
    stderr: Redirect = None,
) -> LaunchResult:
    """Runs what `plan.make_plan` has made and waits for it; afterwards none of its processes is left.

    Called from the main thread, it passes on SIGINT, SIGTERM and SIGHUP while it waits, instead of raising.

    Args:
        plan: the job.
        patience: how long to wait for ranks that shall end.
        end_on_failure: whether one failed rank ends the job, whatever this MPI does of itself.
        stdout, stderr: as for `subprocess.Popen`. Ranks have no input.
    """
    started = time.monotonic()
    np, output = plan.job.np, plan.output
    supervisor = Supervisor(np, patience or Patience(), end_on_failure, plan.start_timeout)
    with ReportServer(plan.remote, supervisor.failed, plan.job.interfaces) as agents, _session_folder(plan) as folder:
        told = Options(
            agents.addresses,
            agents.token,
            terminals=(_terminal(stdout, 1), _terminal(stderr, 2)),
            terminal_size=_size(),
            folder=os.path.abspath(output.folder) if output.folder else "",
            rank_digits=len(str(np - 1)),
            timestamps=output.timestamps,
        )
        environment = {**plan.environment, **folder, VARIABLE: told.to_json()}
        outcome = supervisor.run(plan.command, environment, agents, stdout=stdout, stderr=stderr)
    return LaunchResult(
        exit_code=_exit_code(outcome, agents.ends),
        ends=agents.ends,
        stopped_by=outcome.stopped_by,
        missing=tuple(rank for rank in range(np) if rank not in agents.seen),
        late=outcome.late,
        command=plan.command,
        seconds=time.monotonic() - started,
    )


@contextmanager
def _session_folder(plan: Plan) -> Iterator[dict[str, str]]:
    """While it is entered, a folder of this launch's own for what the MPI launcher keeps on this host.

    In the shared one, Open MPI 5 names its files by process number, leaves them behind when it is killed, and does not
    start ("The PMIx server's listener thread failed to start") once it gets the number of one that was.

    Yields:
        the variable that tells the MPI launcher of it.
    """
    variable = session_folder_variable(plan.mpirun, plan.job, plan.environment)
    if variable is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="hvd-gossip-run-", ignore_cleanup_errors=True) as folder:
        yield {variable: folder}


def _exit_code(outcome: Outcome, ends: tuple[RankEnd, ...]) -> int:
    if outcome.stopped_by:
        return 128 + outcome.stopped_by
    if outcome.late:
        return NOT_STARTED
    failure = first_failure(ends)
    if failure is not None and (not failure.told or outcome.returncode == 0):
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
