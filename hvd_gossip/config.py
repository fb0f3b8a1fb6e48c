"""Every setting, once. Precedence: code, then environment, then default.

`Config` declares them; validation, the launcher's flags, the workers' environment and docs/settings.md come from it.
`python -m hvd_gossip.config > docs/settings.md` writes the documentation.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hvd_gossip import setting_views
from hvd_gossip.algorithms.settings import MIXING, OBSERVE, PARTICULAR, TRANSPORT, MixingSettings
from hvd_gossip.errors import ConfigError
from hvd_gossip.observe.waits import WaitLimits
from hvd_gossip.setting import (
    TRUE_WORDS,
    Boolean,
    Choice,
    Integer,
    Kind,
    Number,
    Path,
    Registered,
    RegisteredOrFile,
    Setting,
    declare,
    did_you_mean,
)

THREADS_DISABLE = "HOROVOD_MPI_THREADS_DISABLE"
"""Horovod's variable for an MPI without threads: what mpi_thread_level=serialized says, where that is not given."""
STALL_GRACE = 10.0
"""Seconds that a training thread's wait outlasts stall_shutdown_time, so that the coordinator's answer comes first."""
PREFIX = "HVD_GOSSIP_"
"""Of the settings' own variables. What the package's parts tell each other begins with an underscore instead."""

ALGORITHM, HOROVOD, LAUNCHER = "Algorithm", "Collectives (Horovod's own variables)", "Launcher only"
GROUPS = (ALGORITHM, MIXING, PARTICULAR, TRANSPORT, HOROVOD, OBSERVE, LAUNCHER)
"""Headings, in the order of the documentation."""

_logger = logging.getLogger("hvd_gossip")
_warned: set[str] = set()
_SLOW = re.compile(r"slow=(\d+):(\d+(?:\.\d+)?)")


class Injection(Kind):
    """Artificial stragglers: "slow=RANK:FACTOR", several joined by commas; empty is none."""

    metavar = "slow=RANK:FACTOR"

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise TypeError("not text")
        slow_factors(value)
        return value

    def valid(self) -> str:
        return "slow=RANK:FACTOR with RANK >= 0 and FACTOR >= 1, several joined by commas"


def slow_factors(inject: str) -> dict[int, float]:
    """The slowdown of each rank that `inject` names: {rank: factor >= 1}.

    Raises:
        ValueError: the text is not of the form "slow=RANK:FACTOR,slow=RANK:FACTOR".
    """
    matches = [_SLOW.fullmatch(part.strip()) for part in inject.split(",")] if inject else []
    factors = {int(match[1]): float(match[2]) for match in matches if match}
    if len(factors) < len(matches) or any(factor < 1 for factor in factors.values()):
        raise ValueError(f"not of the form slow=RANK:FACTOR, FACTOR >= 1, each rank once: {inject!r}")
    return factors


@dataclass(frozen=True)
class Config(MixingSettings):
    """The settings of one process, each validated. Build it with `load`, change it with `override`."""

    algorithm: str = declare(
        "allreduce",
        Registered("hvd_gossip.algorithms.registry", "ALGORITHMS", "auto"),
        ALGORITHM,
        "How replicas are kept together: allreduce is Horovod's way, every other one is gossip between neighbours; auto measures "
        "and chooses.",
    )
    auto_steps: int = declare(
        10,
        Integer(2),
        ALGORITHM,
        "auto: measures so many steps, trained with allreduce, and then chooses.",
        unit="steps",
    )
    topology: object = declare(
        "auto",
        RegisteredOrFile("hvd_gossip.topology", "TOPOLOGIES", "auto"),
        ALGORITHM,
        "Who mixes with whom; auto is the algorithm's own default.",
    )
    mixing_weights: str = declare(
        "metropolis",
        Choice("metropolis", "uniform"),
        MIXING,
        "Weights of a graph that brings none: Metropolis-Hastings, or the same weight for every neighbour.",
    )
    laziness: float = declare(
        0.0,
        Number(0, 1),
        MIXING,
        "Share L of the identity in the mixing matrix: (1 - L) W + L I.",
    )
    chunk_bytes: int = declare(
        1 << 20, Integer(1024, 1 << 30), TRANSPORT, "Parameters are exchanged in chunks of this size.", unit="bytes"
    )
    shutdown_timeout: float = declare(
        30.0, Number(0, above=True), TRANSPORT, "How long shutdown waits for peers before it gives them up.", unit="s"
    )
    mpi_thread_level: str = declare(
        "multiple",
        Choice("multiple", "serialized"),
        TRANSPORT,
        "Thread level asked of MPI; serialized is enough when the script itself makes no MPI calls.",
    )
    cuda_aware: str = declare(
        "auto",
        Choice("auto", "yes", "no"),
        TRANSPORT,
        "Whether MPI takes device memory; auto: ask it; no: stage through pinned host memory.",
    )
    spin_us: float = declare(
        200.0,
        Number(0),
        TRANSPORT,
        "How long the idle progress thread polls before it begins to sleep; on a host with more ranks than cores only while "
        "a caller waits.",
        unit="us",
    )
    backoff_max_us: float = declare(
        1000.0,
        Number(1),
        TRANSPORT,
        "Longest sleep of the progress thread between two polls; four times it, or up to 20 ms, when nothing "
        "is under way.",
        unit="us",
    )
    fusion_threshold: int = declare(
        128 << 20,
        Integer(0),
        HOROVOD,
        "Size of the fusion buffer, which joins small tensors into one operation; 0: no fusion.",
        unit="bytes",
        environment="HOROVOD_FUSION_THRESHOLD",
        horovod_flag="--fusion-threshold-mb",
        horovod_scale=1 << 20,
    )
    cycle_time: float = declare(
        1.0,
        Number(0),
        HOROVOD,
        "How long the controller gathers requests before it answers them.",
        unit="ms",
        environment="HOROVOD_CYCLE_TIME",
        horovod_flag="--cycle-time-ms",
    )
    cache_capacity: int = declare(
        1024,
        Integer(0),
        HOROVOD,
        "Number of negotiated responses to remember; 0: none.",
        environment="HOROVOD_CACHE_CAPACITY",
    )
    dynamic_process_sets: bool = declare(
        False,
        Boolean(),
        HOROVOD,
        "Process sets may be added and removed after init.",
        environment="HOROVOD_DYNAMIC_PROCESS_SETS",
    )
    timeline: str = declare(
        "",
        Path(),
        HOROVOD,
        "File to write a Chrome trace to; DYNAMIC: none before hvd.start_timeline.",
        environment="HOROVOD_TIMELINE",
        horovod_flag="--timeline-filename",
    )
    timeline_mark_cycles: bool = declare(
        False,
        Boolean(),
        HOROVOD,
        "Mark the controller's cycles in the timeline.",
        environment="HOROVOD_TIMELINE_MARK_CYCLES",
    )
    stall_check_disable: bool = declare(
        False,
        Boolean(),
        HOROVOD,
        "Do not warn of tensors that some ranks submitted and others did not.",
        environment="HOROVOD_STALL_CHECK_DISABLE",
        horovod_flag="--no-stall-check",
    )
    stall_check_time: float = declare(
        60.0,
        Number(0),
        HOROVOD,
        "Warn of a silent peer after this long; 0: never.",
        unit="s",
        environment="HOROVOD_STALL_CHECK_TIME_SECONDS",
        horovod_flag="--stall-check-warning-time-seconds",
    )
    stall_shutdown_time: float = declare(
        0.0,
        Number(0),
        HOROVOD,
        "Shut down after a stall of this long; 0: never.",
        unit="s",
        environment="HOROVOD_STALL_SHUTDOWN_TIME_SECONDS",
        horovod_flag="--stall-check-shutdown-time-seconds",
    )
    reset_limit: int = declare(
        0, Integer(0), HOROVOD, "Resets of an elastic training function after which it gives up; 0: no limit."
    )
    log_level: str = declare(
        "warning",
        Registered("hvd_gossip.observe.logs", "LEVELS"),
        HOROVOD,
        "Least severe message to log.",
        environment="HOROVOD_LOG_LEVEL",
    )
    metrics_dir: str = declare("", Path(), OBSERVE, "Directory for a JSON-lines file of metrics a rank; empty: none.")
    report: bool = declare(True, Boolean(), OBSERVE, "Rank 0 prints one line on what runs, at init.")
    inject: str = declare(
        "", Injection(), OBSERVE, "Slow a rank's steps by sleeping, to see what a straggler does.", repeatable=True
    )
    threads_per_rank: int = declare(
        0, Integer(0), LAUNCHER, "Threads a worker computes with (OMP_NUM_THREADS); 0: cores of a host / its workers."
    )

    def override(self, overrides: Mapping[str, object]) -> Config:
        """This configuration with some settings changed in code; None leaves a setting as it is.

        Raises:
            ConfigError: an unknown name or a value that the setting cannot take.
        """
        return dataclasses.replace(self, **_read_overrides(overrides))


def _settings_of(config: type[Config]) -> dict[str, Setting]:
    settings = {}
    for field in dataclasses.fields(config):
        declared: Setting = field.metadata["setting"]
        environment = declared.environment or PREFIX + field.name.upper()
        settings[field.name] = dataclasses.replace(declared, name=field.name, environment=environment)
    return dict(sorted(settings.items(), key=lambda item: GROUPS.index(item[1].group)))


SETTINGS = _settings_of(Config)
"""Every setting by its name, in the order of the documentation."""


def load(overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration of this process.

    Args:
        overrides: settings given in code, by name; None as a value means "not given".
        environ: the environment; an empty variable counts as not set. Unknown HVD_GOSSIP_* variables are warned of, once.

    Raises:
        ConfigError: an unknown name in `overrides`, or a value that a setting cannot take; the message says where the
            value came from and which are valid.
    """
    _warn_of_unknown(environ)
    given = _read_overrides(overrides or {})
    for name, setting in SETTINGS.items():
        text = environ.get(setting.environment)
        if text and name not in given:
            given[name] = setting.read(text, f"environment variable {setting.environment}")
    if "mpi_thread_level" not in given and environ.get(THREADS_DISABLE, "").strip().lower() in TRUE_WORDS:
        given["mpi_thread_level"] = "serialized"
    return Config(**given)


def mixing_settings(config: Config) -> MixingSettings:
    """The settings that an algorithm sees."""
    return MixingSettings(**{name.name: getattr(config, name.name) for name in dataclasses.fields(MixingSettings)})


def wait_limits(config: Config) -> WaitLimits:
    """How long the training thread waits. The collectives give a stalled name up by themselves and say who lacks it; what
    nobody gives up (a gossip step, or a coordinator that is stuck) ends `STALL_GRACE` later here."""
    if config.stall_check_disable:
        return WaitLimits(0.0, config.wait_timeout)
    stall = config.stall_shutdown_time + STALL_GRACE if config.stall_shutdown_time > 0 else config.wait_timeout
    return WaitLimits(config.stall_check_time, min(config.wait_timeout, stall))


def to_environ(overrides: Mapping[str, object]) -> dict[str, str]:
    """The environment variables that say to a worker what `overrides` says; launcher-only settings are left out.

    Raises:
        ConfigError: an unknown name, an invalid value, or one that has no text (an object).
    """
    environ = {}
    for name, value in _read_overrides(overrides).items():
        setting = SETTINGS[name]
        if setting.group != LAUNCHER:
            environ[setting.environment] = _text(setting, value)
    return environ


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for every setting, and horovodrun's name of it where it has another."""
    setting_views.add_arguments(parser, SETTINGS)


def from_arguments(namespace: argparse.Namespace) -> dict[str, object]:
    """The settings that were given on the command line, as overrides for `load` and `to_environ`."""
    return setting_views.from_arguments(namespace, SETTINGS)


def markdown_table() -> str:
    """docs/settings.md."""
    return setting_views.markdown(SETTINGS)


def _read_overrides(overrides: Mapping[str, object]) -> dict[str, Any]:
    for name in overrides:
        if name not in SETTINGS:
            hint = did_you_mean(name, SETTINGS)
            raise ConfigError(f"unknown setting {name!r}.{hint} Valid settings: {', '.join(SETTINGS)}.")
    given = {name: value for name, value in overrides.items() if value is not None}
    return {name: SETTINGS[name].read(value, f"argument {name}") for name, value in given.items()}


def _warn_of_unknown(environ: Mapping[str, str]) -> None:
    known = {setting.environment for setting in SETTINGS.values()}
    for variable in sorted(set(environ) - known - _warned):
        if variable.startswith(PREFIX):
            _warned.add(variable)
            hint = did_you_mean(variable[len(PREFIX) :].lower(), SETTINGS, lambda name: SETTINGS[name].environment)
            _logger.warning("%s is no setting and is ignored.%s", variable, hint)


def _text(setting: Setting, value: object) -> str:
    try:
        return setting.kind.text(value)
    except TypeError as error:
        raise ConfigError(f"{setting.name} cannot be passed to workers in the environment: {error}") from error


if __name__ == "__main__":
    print(markdown_table(), end="")
