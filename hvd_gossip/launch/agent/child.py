"""The command as a process: started so that it ends with its agent, signalled as MPI launchers would, and mirrored."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

ORPHANED = signal.SIGURG
"""Tells the agent that whoever started it is gone; of no effect on anybody who does not ask for it."""
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT}
FORWARDED = {*_ENDING, signal.SIGUSR1, signal.SIGUSR2}
_WATCHED = {*FORWARDED, signal.SIGCHLD, ORPHANED}
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have it
_PR_SET_PDEATHSIG = 1


def block_signals() -> set[signal.Signals | int]:
    """From now on signals wait until `next_signal` is called; returns the mask that was in force."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED))


def next_signal(timeout: float | None = None) -> tuple[int, int]:
    """Waits for a blocked signal: its number, and the process that sent it; (0, 0) after `timeout` seconds."""
    received = signal.sigwaitinfo(_WATCHED) if timeout is None else signal.sigtimedwait(_WATCHED, timeout)
    return (received.si_signo, received.si_pid) if received else (0, 0)


def signal_when_parent_dies(number: int) -> None:
    """Asks the kernel for a signal when this process's parent is gone; Linux only, elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def open_output(terminal: bool, size: tuple[int, int]) -> tuple[int, int]:
    """(read end, write end) of a pipe, or of a terminal of `size` (lines, columns) that changes nothing it is given."""
    if not terminal:
        return os.pipe()
    reader, writer = os.openpty()
    tty.setraw(writer)
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    return reader, writer


def start(
    command: Sequence[str], env: Mapping[str, str], stdout: int, stderr: int, mask: set[signal.Signals | int]
) -> subprocess.Popen[bytes]:
    """Starts the command, without input: Open MPI 5 gives ranks one that never ends, and who reads it hangs.

    The MPI launcher's other file descriptors stay open: MPICH's PMI uses one.

    Raises:
        OSError: it cannot be started.
    """

    def in_child() -> None:
        signal_when_parent_dies(signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        close_fds=False,
        preexec_fn=in_child,
    )


def sender(child: int) -> Callable[[int], None]:
    """How to signal the command with its own children: the process group if it is this agent's, else just the child."""
    if os.getpgrp() == os.getpid():
        return lambda number: os.killpg(os.getpgrp(), number)
    return lambda number: os.kill(child, number)


def end_like(returncode: int) -> NoReturn:
    """Ends this process with an exit code, or by a signal when it is negative (as `subprocess` has it)."""
    if returncode < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left its own core, if any
        if -returncode not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-returncode, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-returncode})  # and no other, which may be waiting
        os.kill(os.getpid(), -returncode)
    os._exit(returncode if returncode >= 0 else 128 - returncode)
