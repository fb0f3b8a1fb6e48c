"""horovodrun's configuration file (--config-file): YAML whose values stand for flags, in the place of --config-file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from hvd_gossip.errors import ConfigError
from hvd_gossip.launch.arguments import parse
from hvd_gossip.setting import did_you_mean

OWN_SECTION = "hvd_gossip"
"""Section of settings that Horovod does not have, by their names here: `algorithm: adpsgd`."""
SECTIONS: dict[str, dict[str, str | tuple[str, str]]] = {
    "params": {
        "fusion_threshold_mb": "--fusion-threshold-mb",
        "cycle_time_ms": "--cycle-time-ms",
        "cache_capacity": "--cache-capacity",
        "hierarchical_allreduce": ("--hierarchical-allreduce", "--no-hierarchical-allreduce"),
        "hierarchical_allgather": ("--hierarchical-allgather", "--no-hierarchical-allgather"),
    },
    "autotune": {
        "enabled": ("--autotune", "--no-autotune"),
        "log_file": "--autotune-log-file",
        "warmup_samples": "--autotune-warmup-samples",
        "steps_per_sample": "--autotune-steps-per-sample",
        "bayes_opt_max_samples": "--autotune-bayes-opt-max-samples",
        "gaussian_process_noise": "--autotune-gaussian-process-noise",
    },
    "timeline": {
        "filename": "--timeline-filename",
        "mark_cycles": ("--timeline-mark-cycles", "--no-timeline-mark-cycles"),
    },
    "stall_check": {
        "enabled": ("--stall-check", "--no-stall-check"),
        "warning_time_seconds": "--stall-check-warning-time-seconds",
        "shutdown_time_seconds": "--stall-check-shutdown-time-seconds",
    },
    "library_options": {
        "mpi_threads_disable": ("--mpi-threads-disable", "--no-mpi-threads-disable"),
        "num_nccl_streams": "--num-nccl-streams",
        "thread_affinity": "--thread-affinity",
        "ccl_bgt_affinity": "--thread-affinity",
        "gloo_timeout_seconds": "--gloo-timeout-seconds",
    },
    "logging": {
        "level": "--log-level",
        "with_timestamp": ("--log-with-timestamp", "--log-without-timestamp"),
        "hide_timestamp": ("--log-hide-timestamp", "--no-log-hide-timestamp"),
    },
}
"""What each value of each section stands for: a flag with this value, or one of two switches, for true and for false."""
CONTROLLERS = {"mpi": "--mpi", "gloo": "--gloo"}


class ConfigFile(argparse.Action):
    """Parses the file's flags where it is named: they replace what comes before it, and give way to what comes after.

    That is horovodrun's documentation. `namespace.notes` tells of flags before it that the file has replaced.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        path = str(values)
        before = dict(vars(namespace))
        try:
            parse(parser, flags_of(path), namespace)
        except ConfigError as error:
            parser.error(str(error))
        for name, value in before.items():
            if name not in ("command", "ignored", "notes") and vars(namespace)[name] != value:
                namespace.notes.append(
                    f"{path} replaces --{name.replace('_', '-')} {value}, which stands before it; what comes after "
                    "--config-file would win"
                )


def flags_of(path: str) -> list[str]:
    """The flags that a file stands for.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds a section or value that is not known.
    """
    try:
        with open(path) as file:
            content = yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is not YAML: {error}") from error
    if not isinstance(content or {}, dict):
        raise ConfigError(f"config file {path}: expected sections ({', '.join(SECTIONS)}), not {content!r}")
    return [word for name, section in (content or {}).items() for word in _section(path, name, section)]


def _section(path: str, name: str, section: Any) -> Iterator[str]:
    if name == "controller":
        yield _known(CONTROLLERS, str(section).lower(), f"config file {path}: controller")
        return
    flags = {} if name == OWN_SECTION else _known(SECTIONS, name, f"config file {path}: section")
    if not isinstance(section or {}, dict):
        raise ConfigError(f"config file {path}: section {name} holds {section!r}, not names with values")
    for key, value in (section or {}).items():
        own = f"--{str(key).replace('_', '-')}"
        pair = (own, own.replace("--", "--no-", 1)) if isinstance(value, bool) else own
        flag = pair if name == OWN_SECTION else _known(flags, key, f"config file {path}: {name} has no value")
        yield from _words(path, f"{name}.{key}", flag, value)


def _words(path: str, name: str, flag: str | tuple[str, str], value: Any) -> Iterator[str]:
    if value is None:
        return
    if isinstance(flag, str):
        yield f"{flag}={value}"
    elif isinstance(value, bool):
        yield flag[0] if value else flag[1]
    else:
        raise ConfigError(f"config file {path}: {name} is true or false, not {value!r}")


def _known(names: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in names:
        raise ConfigError(f"{what} {name!r}.{did_you_mean(str(name), names)} Valid: {', '.join(names)}.")
    return names[name]
