"""What every test shares: the report header and hypothesis' profiles."""

from __future__ import annotations

import os
import signal
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.mpi import find_mpirun, mpi_library

# Timings never decide a test, and a run is repeated exactly; HYPOTHESIS_PROFILE=explore looks at fresh examples.
settings.register_profile(
    "default", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", parent=settings.get_profile("default"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure() -> None:
    """Signals work in what the tests start, even where a shell (in the background) or nohup has made them deaf to it."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """However many processes there are, launches of ranks stand in line."""
    from tests.schedule import LinesOfLaunches  # needs pytest-xdist, which plain runs do without

    return LinesOfLaunches(config, log)


def pytest_report_header() -> list[str]:
    return [f"MPI: {mpi_library()}, {_mpirun()}", f"torch: {_version('torch')}, numpy: {_version('numpy')}"]


def _mpirun() -> str:
    try:
        return find_mpirun()
    except FileNotFoundError as error:
        return str(error)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
