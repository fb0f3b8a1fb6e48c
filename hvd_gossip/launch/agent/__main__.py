"""The agent's life: start the command, watch signals until it has ended, report, end alike."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, NoReturn

if TYPE_CHECKING:
    from hvd_gossip.launch.agent import child
    from hvd_gossip.launch.agent.channel import Channel
    from hvd_gossip.launch.agent.options import AGENT_PID, RANK_VARIABLES, VARIABLE, Options
    from hvd_gossip.launch.agent.relay import Relay, Stream
else:  # run by its path: the folder is on sys.path, the package is not
    import child
    from channel import Channel
    from options import AGENT_PID, RANK_VARIABLES, VARIABLE, Options
    from relay import Relay, Stream


class Agent:
    """One rank's command, running."""

    def __init__(self, options: Options, command: list[str]) -> None:
        self._options = options
        self._parent, self._started = os.getppid(), time.monotonic()
        self._rank = next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)
        self._lost = False
        self._told: set[int] = set()  # MPI's may follow the launcher's, and the command end of either
        self._mask = child.block_signals()
        child.signal_when_parent_dies(child.ORPHANED)
        try:
            logs = self._open_logs()
            self._process, self._relay = self._start(command, logs)
        except OSError as error:
            self._cannot_start(error.filename or command[0], error)
        self._signal_all = child.sender(self._process.pid)
        self._channel = self._connect(self._process.pid)

    def run(self) -> NoReturn:
        self._relay.start()
        returncode = self._watch()
        self._relay.finish()
        self._report(returncode, self._relay.tail.lines())
        if returncode != 0 and os.getpgrp() == os.getpid():
            self._signal_all(signal.SIGTERM)  # what a failed command leaves behind; blocked here
        child.end_like(returncode)

    def _open_logs(self) -> list[BinaryIO | None]:
        """Files for the output, if there shall be some."""
        if not self._options.folder:
            return [None, None]
        folder = os.path.join(self._options.folder, f"rank.{self._rank:0{self._options.rank_digits}}")
        os.makedirs(folder, exist_ok=True)
        return [open(os.path.join(folder, name), "wb", buffering=0) for name in ("stdout", "stderr")]

    def _start(self, command: list[str], logs: list[BinaryIO | None]) -> tuple[subprocess.Popen[bytes], Relay]:
        outputs = [child.open_output(terminal, self._options.terminal_size) for terminal in self._options.terminals]
        (stdout, stdout_end), (stderr, stderr_end) = outputs
        environ = {**os.environ, AGENT_PID: str(os.getpid())}
        process = child.start(command, environ, stdout_end, stderr_end, self._mask)
        os.close(stdout_end)
        os.close(stderr_end)
        stamped = self._options.timestamps
        return process, Relay([Stream(1, stdout, logs[0], stamped), Stream(2, stderr, logs[1], stamped)])

    def _cannot_start(self, what: str, error: OSError) -> NoReturn:
        """The command cannot be run, or its output not be kept."""
        verb = "written" if self._options.folder and what.startswith(self._options.folder) else "run"
        text = f"{what} cannot be {verb} on {socket.gethostname()}: {error.strerror}"
        print(text, file=sys.stderr, flush=True)
        self._channel = self._connect(os.getpid())
        returncode = child.NOT_FOUND if isinstance(error, FileNotFoundError) else child.NOT_EXECUTABLE
        self._report(returncode, [text])
        child.end_like(returncode)

    def _connect(self, pid: int) -> Channel:
        hello = {"token": self._options.token, "rank": self._rank, "host": socket.gethostname(), "pid": pid}
        channel = Channel(self._options.addresses, hello, self._deliver, self._launcher_lost)
        channel.start()
        return channel

    def _watch(self) -> int:
        """Waits for the command's end; returns its exit code, or the negative number of the signal that ended it."""
        kill_at: float | None = None
        while self._process.poll() is None:
            number, source = child.next_signal(None if kill_at is None else max(0.0, kill_at - time.monotonic()))
            if kill_at is not None and time.monotonic() >= kill_at:
                self._signal_all(signal.SIGKILL)
            elif kill_at is None and number == child.ORPHANED and (self._lost or os.getppid() != self._parent):
                kill_at = time.monotonic() + self._options.orphan_grace
                self._deliver(signal.SIGTERM)
            elif number in child.FORWARDED:
                self._received(number, source)
        self._receive_waiting()
        return self._process.returncode

    def _receive_waiting(self) -> None:
        """Notes signals that nobody has looked at: the command may have died of MPI's first."""
        while (received := child.next_signal(0.0)) != (0, 0):
            if received[0] in child.FORWARDED:
                self._received(*received)

    def _received(self, number: int, source: int) -> None:
        """Notes the MPI launcher's signals, which went to the whole group; passes on anybody else's."""
        if source == self._parent:
            self._told.add(number)
        elif source != os.getpid():
            self._process.send_signal(number)

    def _deliver(self, number: int) -> None:
        self._told.add(number)
        self._signal_all(number)

    def _launcher_lost(self) -> None:
        self._lost = True
        os.kill(os.getpid(), child.ORPHANED)

    def _report(self, returncode: int, tail: list[str]) -> None:
        seconds = time.monotonic() - self._started
        told = any(returncode in (-number, 128 + number) for number in self._told)
        end = {"returncode": returncode, "told": told, "seconds": seconds, "tail": tail}
        if not self._channel.tell(end) and returncode != 0:
            where = ", ".join(f"{host}:{port}" for host, port in self._options.addresses)
            print(
                f"rank {self._rank} on {socket.gethostname()} ended with {returncode} after {seconds:.1f} s, and could "
                f"not tell the launcher at {where}: is it cut off by a firewall?",
                file=sys.stderr,
            )


if __name__ == "__main__":
    Agent(Options.from_json(os.environ.pop(VARIABLE)), sys.argv[1:]).run()
