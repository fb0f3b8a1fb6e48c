"""Runs the MPI launcher to its end: passes on signals, ends what goes on after a failure, leaves nothing behind."""

from __future__ import annotations

import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import IO, TypeAlias

import psutil

from hvd_gossip.launch.reports import RankEnd, ReportServer

Redirect: TypeAlias = "int | IO[bytes] | IO[str] | None"
"""Where output goes to, as `subprocess` has it; None: to this process's own."""
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_AGAIN = 0.5
"""Longest wait for an event, seconds. A signal that comes in the instant before the wait begins does not interrupt it: Python
calls its handler when the wait is over."""


@dataclass(frozen=True)
class Patience:
    """How long to wait before each harder step, in seconds.

    Attributes:
        failure: for MPI to end the other ranks after one failed, before they are sent SIGTERM.
        stop: for ranks to end of the signal that was passed on, before they are killed.
        kill: for everything to be gone once it was killed.
        call: for agents to call and be told of a signal themselves, before the MPI launcher is told in the place of those
            that are missing.
    """

    failure: float = 5.0
    stop: float = 10.0
    kill: float = 10.0
    call: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """How the MPI launcher ended: its exit code (negative: a signal), and why it was told to.

    Attributes:
        stopped_by: the signal that stopped the job, if any.
        late: ranks had not started in time.
    """

    returncode: int
    stopped_by: int | None
    late: bool = False


class Supervisor:
    """One run of the MPI launcher.

    Args:
        np: how many ranks it starts.
        patience: the time limits.
        end_on_failure: whether one failed rank ends the job, whatever this MPI does of itself.
        start_timeout: seconds after which the job is ended unless each rank's agent has called; 0: never.
    """

    def __init__(self, np: int, patience: Patience, end_on_failure: bool = True, start_timeout: float = 0.0) -> None:
        self._np, self._patience, self._end_on_failure = np, patience, end_on_failure
        self._start_timeout, self._late = start_timeout, False
        self._start_by: float | None = None
        self._descendants: set[psutil.Process] = set()
        self._events: queue.SimpleQueue[int | RankEnd | None] = queue.SimpleQueue()
        self._steps: deque[tuple[Callable[[], None], float]] = deque()
        self._deadline: float | None = None
        self._call_by: float | None = None
        self._delivered = 0
        self._stopped_by: int | None = None

    def failed(self, end: RankEnd) -> None:
        """Notes that a rank failed of its own accord; from any thread."""
        self._events.put(end)

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        agents: ReportServer,
        stdout: Redirect = None,
        stderr: Redirect = None,
    ) -> Outcome:
        """Starts the command in a session of its own, and returns when neither it nor an agent is left.

        Raises:
            OSError: it cannot be started.
        """
        with self._noting_signals():
            process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            self._process = process
            threading.Thread(target=self._await_end, args=[process], name="mpirun", daemon=True).start()
            self._start_by = time.monotonic() + self._start_timeout if self._start_timeout else None
            try:
                self._watch(process, agents)
            finally:
                self._leave_nothing(process, agents)
        return Outcome(process.returncode, self._stopped_by, self._late)

    def _watch(self, process: subprocess.Popen[bytes], agents: ReportServer) -> None:
        while True:
            remaining = self._remaining()
            try:
                event = self._events.get(timeout=min(remaining, LOOK_AGAIN))
            except queue.Empty:
                if remaining <= LOOK_AGAIN:
                    self._when_due(process, agents)
                continue
            if event is None:
                return
            if isinstance(event, RankEnd):
                self._on_failure(process, agents)
            else:
                self._on_signal(event, process, agents)

    def _when_due(self, process: subprocess.Popen[bytes], agents: ReportServer) -> None:
        if self._start_by is not None and time.monotonic() >= self._start_by:
            self._check_started(process, agents)
        elif self._call_by is not None and time.monotonic() >= self._call_by:
            self._tell_mpi(process, agents)
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            self._harder()

    def _check_started(self, process: subprocess.Popen[bytes], agents: ReportServer) -> None:
        self._start_by = None
        if len(agents.seen) < self._np:
            self._late = True
            self._plan(signal.SIGTERM, process, agents)
            self._harder()

    def _on_failure(self, process: subprocess.Popen[bytes], agents: ReportServer) -> None:
        if self._end_on_failure and self._deadline is None:
            self._plan(signal.SIGTERM, process, agents)
            self._deadline = time.monotonic() + self._patience.failure

    def _on_signal(self, number: int, process: subprocess.Popen[bytes], agents: ReportServer) -> None:
        if self._stopped_by is None:
            self._plan(number, process, agents)
        self._stopped_by = self._stopped_by or number
        self._harder()  # at once; and a second signal does not wait for what the first one does

    def _plan(self, number: int, process: subprocess.Popen[bytes], agents: ReportServer) -> None:
        self._start_by = self._call_by = None
        self._steps = deque(
            [
                (partial(self._deliver, number, agents), self._patience.stop),
                (partial(agents.signal, signal.SIGKILL), self._patience.kill),
                (partial(_kill_session, process), self._patience.kill),
            ]
        )

    def _harder(self) -> None:
        if self._steps:
            self._descendants |= _descendants(self._process)  # now, while it can be seen whose they are
            action, patience = self._steps.popleft()
            action()
            self._deadline = time.monotonic() + patience

    def _deliver(self, number: int, agents: ReportServer) -> None:
        """Through the agents, as MPI launchers turn signals into others; through those only if agents stay missing."""
        agents.signal(number)
        if self._missing(agents):
            self._delivered, self._call_by = number, time.monotonic() + self._patience.call

    def _tell_mpi(self, process: subprocess.Popen[bytes], agents: ReportServer) -> None:
        self._call_by = None
        if self._missing(agents):
            process.send_signal(self._delivered)

    def _missing(self, agents: ReportServer) -> bool:
        return agents.connected + len(agents.ends) < self._np

    def _remaining(self) -> float:
        """Seconds until something is to be done, whatever happens."""
        due = [self._start_by, self._call_by, self._deadline if self._steps else None]
        return max(0.0, min((at for at in due if at is not None), default=math.inf) - time.monotonic())

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._events.put(None)

    def _leave_nothing(self, process: subprocess.Popen[bytes], agents: ReportServer) -> None:
        if process.poll() is None:
            _kill_session(process)
        process.wait()
        agents.hang_up()
        if not agents.wait_gone(self._patience.kill):
            agents.signal(signal.SIGKILL)
        for left in self._descendants:  # an ssh that hangs outlives the MPI launcher, in a session of its own
            with suppress(psutil.NoSuchProcess):
                left.kill()

    @contextmanager
    def _noting_signals(self) -> Iterator[None]:
        """While it is entered, signals become events; but what is ignored (nohup) stays so, as in any shell."""

        def note(number: int, frame: FrameType | None) -> None:
            self._events.put(number)

        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        wanted = [number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
        before = [signal.signal(number, note) for number in wanted]
        try:
            yield
        finally:
            for number, handler in zip(wanted, before, strict=True):
                signal.signal(number, handler)


def _descendants(process: subprocess.Popen[bytes]) -> set[psutil.Process]:
    """The processes that the MPI launcher has started on this host, and theirs."""
    try:
        return set(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kills the MPI launcher with its helpers; those that MPI put into sessions of their own end with their agents."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
