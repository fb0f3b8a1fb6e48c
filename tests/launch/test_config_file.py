"""horovodrun's --config-file: every value it documents, in the place where the file is named."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hvd_gossip import config
from hvd_gossip.errors import ConfigError
from hvd_gossip.launch import cli
from hvd_gossip.launch.arguments import parse
from hvd_gossip.launch.config_file import flags_of

WHOLE = """
controller: mpi
params:
  fusion_threshold_mb: 32
  cycle_time_ms: 3.5
  cache_capacity: 2048
  hierarchical_allreduce: true
  hierarchical_allgather: false
autotune:
  enabled: true
  log_file: horovod_autotune_log.csv
  warmup_samples: 5
  steps_per_sample: 20
  bayes_opt_max_samples: 50
  gaussian_process_noise: 0.9
timeline:
  filename: horovod_timeline.json
  mark_cycles: true
stall_check:
  enabled: false
  warning_time_seconds: 120
  shutdown_time_seconds: 240
library_options:
  mpi_threads_disable: true
  num_nccl_streams: 2
  ccl_bgt_affinity: 1
  gloo_timeout_seconds: 60
logging:
  level: INFO
  hide_timestamp: true
hvd_gossip:
  algorithm: dpsgd
  mixing_weights: uniform
  report: false
"""


def file(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def parsed(*argv: str) -> argparse.Namespace:
    return parse(cli._parser("horovodrun"), ["-np", "2", *argv, "python", "train.py"])


def test_every_documented_value(tmp_path: Path) -> None:
    arguments = parsed("--config-file", file(tmp_path, WHOLE))
    assert config.from_arguments(arguments) == {
        "fusion_threshold": 32 << 20,
        "cycle_time": 3.5,
        "cache_capacity": 2048,
        "timeline": "horovod_timeline.json",
        "timeline_mark_cycles": True,
        "stall_check_disable": True,
        "stall_check_time": 120.0,
        "stall_shutdown_time": 240.0,
        "mpi_thread_level": "serialized",
        "log_level": "info",
        "algorithm": "dpsgd",
        "mixing_weights": "uniform",
        "report": False,
    }
    ignored = {flag for flags in arguments.ignored.values() for flag in flags}
    assert {"--autotune", "--autotune-log-file", "--hierarchical-allreduce", "--num-nccl-streams"} < ignored
    assert "--no-hierarchical-allgather" not in ignored
    assert arguments.command == ["python", "train.py"]
    assert not arguments.notes


def test_flags_after_the_file_win_and_flags_before_it_do_not(tmp_path: Path) -> None:
    path = file(tmp_path, "params: {cycle_time_ms: 3.5, cache_capacity: 7}")
    after = parsed("--config-file", path, "--cycle-time-ms", "9")
    assert config.from_arguments(after) == {"cycle_time": 9.0, "cache_capacity": 7}
    assert not after.notes
    before = parsed("--cycle-time-ms", "9", "--seed", "3", "--config-file", path)
    assert config.from_arguments(before) == {"cycle_time": 3.5, "cache_capacity": 7, "seed": 3}
    assert before.notes == [
        f"{path} replaces --cycle-time 9.0, which stands before it; what comes after --config-file would win"
    ]


@pytest.mark.parametrize(("text", "flags"), [("", []), ("timeline:\n", []), ("timeline: {filename: }", [])])
def test_what_is_left_out_says_nothing(text: str, flags: list[str], tmp_path: Path) -> None:
    assert flags_of(file(tmp_path, text)) == flags


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("param: {cycle_time_ms: 1}", "section 'param'. Did you mean params.*Valid: params, autotune"),
        ("params: {cycle_time: 1}", "params has no value 'cycle_time'. Did you mean cycle_time_ms"),
        ("controller: nccl", "controller 'nccl'.*Valid: mpi, gloo"),
        ("params: 5", "section params holds 5"),
        ("- params", "expected sections"),
        ("params: {", "is not YAML"),
        ("autotune: {enabled: maybe}", "autotune.enabled is true or false, not 'maybe'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        flags_of(file(tmp_path, text))


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        flags_of(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params: {cycle_time_ms: fast}", "a number >= 0"),
        ("hvd_gossip: {algoritm: sgp}", "unknown option --algoritm=sgp. Did you mean --algorithm"),
        ("wrong: {}", "section 'wrong'"),
    ],
)
def test_errors_end_the_launcher_before_anything_starts(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        parsed("--config-file", file(tmp_path, text))
    assert exited.value.code == 2
    assert message in capsys.readouterr().err
