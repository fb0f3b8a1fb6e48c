"""Waiting for what other processes do; each test's own time-out is the limit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

LIMIT = 150.0
"""Seconds that what imports a framework, or starts several Pythons, may take on a busy machine."""
TEST_LIMIT = LIMIT + 30.0
"""For the test around it, which then still says what has hung."""


def until(condition: Callable[[], bool]) -> None:
    """Looks until it is so."""
    while not condition():
        time.sleep(0.002)


def number_in(path: Path) -> int:
    """Waits until somebody has written a number there, whole, and returns it."""
    until(lambda: path.is_file() and path.read_text().endswith("\n"))
    return int(path.read_text())


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has ended too."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def marked(variable: str, value: str) -> list[psutil.Process]:
    """The processes that have a variable of this value in their environment, except this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            running = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if running and process.environ().get(variable) == value:
                found.append(process)
    return found
