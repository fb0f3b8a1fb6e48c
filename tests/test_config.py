"""Every setting: where its value comes from, what it refuses, and that flags, environment and documentation agree."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import pickle
import re
import subprocess
import sys
import typing
from pathlib import Path

import networkx
import pytest

from hvd_gossip import config
from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.config import SETTINGS, STALL_GRACE, Config, load, slow_factors, to_environ, wait_limits
from hvd_gossip.errors import ConfigError
from hvd_gossip.observe.waits import WaitLimits
from hvd_gossip.setting import Boolean
from hvd_gossip.topology import TOPOLOGIES

ROOT = Path(__file__).parent.parent

OTHER: dict[str, tuple[str, object]] = {
    "algorithm": ("adpsgd", "adpsgd"),
    "auto_steps": ("20", 20),
    "topology": ("ring", "ring"),
    "mixing_order": ("sequential", "sequential"),
    "mixing_period": ("4", 4),
    "global_average_every": ("100", 100),
    "wire_dtype": ("bfloat16", "bfloat16"),
    "seed": ("7", 7),
    "outer": ("slowmo", "slowmo"),
    "outer_every": ("500", 500),
    "outer_lr": ("0.5", 0.5),
    "outer_momentum": ("0.9", 0.9),
    "mixing_weights": ("uniform", "uniform"),
    "laziness": ("0.25", 0.25),
    "tau": ("2", 2),
    "qg_momentum": ("0.5", 0.5),
    "qg_nesterov": ("yes", True),
    "servers": ("0", 0),
    "staleness_aware": ("1", True),
    "softsync": ("4", 4),
    "compressor": ("sign", "sign"),
    "compression_ratio": ("0.01", 0.01),
    "consensus_step": ("0.5", 0.5),
    "acid_momentum": ("0.5", 0.5),
    "algorithm_options": ("depth=3,mode=fast", "depth=3,mode=fast"),
    "wait_timeout": ("2.5", 2.5),
    "chunk_bytes": ("65536", 65536),
    "shutdown_timeout": ("3", 3.0),
    "mpi_thread_level": ("serialized", "serialized"),
    "cuda_aware": ("no", "no"),
    "spin_us": ("10", 10.0),
    "backoff_max_us": ("2000", 2000.0),
    "fusion_threshold": ("0", 0),
    "cycle_time": ("0.1", 0.1),
    "cache_capacity": ("0", 0),
    "dynamic_process_sets": ("1", True),
    "timeline": ("trace.json", "trace.json"),
    "timeline_mark_cycles": ("1", True),
    "stall_check_disable": ("true", True),
    "stall_check_time": ("5", 5.0),
    "stall_shutdown_time": ("90", 90.0),
    "reset_limit": ("3", 3),
    "log_level": ("DEBUG", "debug"),
    "consensus_sample_every": ("50", 50),
    "metrics_dir": ("metrics", "metrics"),
    "report": ("0", False),
    "inject": ("slow=1:10,slow=3:2.5", "slow=1:10,slow=3:2.5"),
    "threads_per_rank": ("2", 2),
}
"""A text for every setting, not the default's, and the value that it means."""

BAD: dict[str, list[object]] = {
    "algorithm": ["adpsdg", "", 3],
    "auto_steps": [1, "few"],
    "topology": ["rign", "no/such/file.json", "", 3, True],
    "mixing_order": ["first"],
    "mixing_period": [0, 1.5, "1.5", True],
    "global_average_every": [-1],
    "wire_dtype": ["float61"],
    "seed": [-1, 2**63],
    "outer": ["adam"],
    "outer_every": [0],
    "outer_lr": [0, -1],
    "outer_momentum": [1.0, -0.1],
    "mixing_weights": ["best"],
    "laziness": [1.0, -0.1, "nan", True],
    "tau": [0],
    "qg_momentum": [1.0],
    "qg_nesterov": ["maybe"],
    "servers": [-1],
    "staleness_aware": ["maybe"],
    "softsync": [0],
    "compressor": ["zip"],
    "compression_ratio": [0],
    "consensus_step": [-1],
    "acid_momentum": [-1],
    "algorithm_options": ["depth", "=3", 3],
    "wait_timeout": [0, "inf", "soon"],
    "chunk_bytes": [0, 2**31],
    "shutdown_timeout": [0, -3],
    "mpi_thread_level": ["funneled"],
    "cuda_aware": ["maybe"],
    "spin_us": [-1],
    "backoff_max_us": [0],
    "fusion_threshold": [-1, "64MB"],
    "cycle_time": [-0.5],
    "cache_capacity": [-1],
    "dynamic_process_sets": ["maybe"],
    "timeline": [3],
    "timeline_mark_cycles": ["maybe", 2, 0.5],
    "stall_check_disable": ["maybe"],
    "stall_check_time": [-1],
    "stall_shutdown_time": [-1],
    "reset_limit": [-1],
    "log_level": ["loud"],
    "consensus_sample_every": [-1],
    "metrics_dir": [3],
    "report": ["2"],
    "inject": ["slow=1", "slow=1:0.5", "fast=1:2", "slow=1:2,slow=1:3", "slow=-1:2", 3],
    "threads_per_rank": [-1],
}


def parse(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    return config.from_arguments(parser.parse_args(arguments))


def test_the_lists_of_this_test_are_complete() -> None:
    assert list(OTHER) == list(BAD) == list(SETTINGS)
    assert all(value != SETTINGS[name].default for name, (_, value) in OTHER.items())


@pytest.mark.parametrize("name", SETTINGS)
def test_default_is_valid_and_of_the_declared_type(name: str) -> None:
    setting, annotation = SETTINGS[name], typing.get_type_hints(Config)[name]
    assert isinstance(setting.default, annotation)
    parsed = setting.kind.parse(setting.default)
    assert parsed == setting.default
    assert isinstance(parsed, annotation)


def test_horovod_2468_defaults_of_fusion() -> None:
    """horovod#2468: cycles of 5 ms were too long, and 64 MiB too small; it has been 1 ms and 128 MiB since."""
    assert (Config().cycle_time, Config().fusion_threshold) == (1.0, 128 * 2**20)


@pytest.mark.parametrize("name", SETTINGS)
def test_code_wins_over_environment_wins_over_default(name: str) -> None:
    setting, (text, value) = SETTINGS[name], OTHER[name]
    environ = {setting.environment: text}
    default = getattr(load({}, {}), name)
    assert default == setting.default
    assert getattr(load({}, environ), name) == value
    if name not in ("timeline", "metrics_dir"):
        assert isinstance(getattr(load({}, environ), name), type(setting.default))
    assert getattr(load({name: default}, environ), name) == default
    assert getattr(load({name: value}, {}), name) == value


@pytest.mark.parametrize("name", SETTINGS)
def test_none_and_an_empty_variable_say_nothing(name: str) -> None:
    environment = SETTINGS[name].environment
    assert load({name: None}, {environment: ""}) == load({}, {})
    assert getattr(load({name: None}, {environment: OTHER[name][0]}), name) == OTHER[name][1]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_value_is_an_error_that_names_source_value_and_choices(name: str, value: object) -> None:
    setting = SETTINGS[name]
    with pytest.raises(ConfigError) as from_code:
        load({name: value}, {})
    assert f"{name}={value!r} (argument {name}) is not valid" in str(from_code.value)
    assert setting.kind.valid() in str(from_code.value)
    text = str(value)
    if isinstance(value, str) and text:
        with pytest.raises(ConfigError, match=re.escape(f"(environment variable {setting.environment}) is not valid")):
            load({}, {setting.environment: text})
        with pytest.raises(SystemExit):
            parse(f"{setting.flag}={text}")


def test_code_does_not_hide_a_bad_value_of_another_setting() -> None:
    with pytest.raises(ConfigError, match="HVD_GOSSIP_SEED"):
        load({"algorithm": "sgp"}, {"HVD_GOSSIP_SEED": "x"})


def test_typing_errors_are_recognised() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean adpsgd.*Valid: .*allreduce"):
        load({"algorithm": "adpsdg"}, {})
    with pytest.raises(
        ConfigError, match=r"unknown setting 'algoritm'\. Did you mean algorithm or algorithm_options\? Valid.*topology"
    ):
        load({"algoritm": "sgp"}, {})


def test_unknown_variables_are_warned_of_once_and_internal_ones_never(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"HVD_GOSSIP_ALGORITM": "sgp", "HVD_GOSSIP_CYCLE_TIME": "1", "HOROVOD_MADE_UP": "1"}
    environ |= {"_HVD_GOSSIP_AGENT": "x"}
    logger = logging.getLogger("hvd_gossip")
    monkeypatch.setattr(logger, "propagate", False)  # else the fixture has each record twice
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    load({}, environ)
    load({}, environ)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "HVD_GOSSIP_ALGORITM is no setting and is ignored. Did you mean HVD_GOSSIP_ALGORITHM or "
        "HVD_GOSSIP_ALGORITHM_OPTIONS?",
        "HVD_GOSSIP_CYCLE_TIME is no setting and is ignored. Did you mean HOROVOD_CYCLE_TIME?",
    ]


def test_horovods_variables_are_the_only_ones_of_their_settings() -> None:
    horovods = {name for name, setting in SETTINGS.items() if setting.environment.startswith("HOROVOD_")}
    assert SETTINGS["fusion_threshold"].environment == "HOROVOD_FUSION_THRESHOLD"
    assert {"cycle_time", "timeline", "log_level", "stall_check_time"} < horovods
    assert load({}, {"HOROVOD_TIMELINE_MARK_CYCLES": "True", "HOROVOD_CYCLE_TIME": "0.5"}).timeline_mark_cycles


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({"HOROVOD_MPI_THREADS_DISABLE": "1"}, "serialized"),
        ({"HOROVOD_MPI_THREADS_DISABLE": "0"}, "multiple"),
        ({"HOROVOD_MPI_THREADS_DISABLE": "1", "HVD_GOSSIP_MPI_THREAD_LEVEL": "multiple"}, "multiple"),
    ],
)
def test_horovods_variable_for_an_mpi_without_threads(environ: dict[str, str], level: str) -> None:
    assert config.load(environ=environ).mpi_thread_level == level


def test_names_come_from_the_registries() -> None:
    for algorithm in ALGORITHMS:
        assert load({"algorithm": algorithm.upper()}, {}).algorithm == algorithm
    for topology in ("auto", *TOPOLOGIES):
        assert load({"topology": topology}, {}).topology == topology


def test_topology_may_be_a_file_or_an_object(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text("{}")
    assert load({"topology": path}, {}).topology == str(path)
    assert load({}, {"HVD_GOSSIP_TOPOLOGY": str(path)}).topology == str(path)
    graph = networkx.cycle_graph(4)
    assert load({"topology": graph}, {}).topology is graph
    with pytest.raises(ConfigError, match="Graph objects can be given in code only"):
        to_environ({"topology": graph})


def test_config_is_immutable_and_override_makes_another() -> None:
    first = load({"seed": 3}, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.seed = 4  # type: ignore[misc]
    second = first.override({"algorithm": "SGP", "wait_timeout": "5", "laziness": None})
    assert (second.seed, second.algorithm, second.wait_timeout) == (3, "sgp", 5.0)
    assert first.algorithm == "allreduce"
    with pytest.raises(ConfigError, match="laziness=2"):
        first.override({"laziness": 2})
    assert pickle.loads(pickle.dumps(second)) == second


def test_environment_carries_every_setting_to_the_workers() -> None:
    given = {name: value for name, (_, value) in OTHER.items() if SETTINGS[name].group != config.LAUNCHER}
    assert load({}, to_environ(given)) == load(given, {})
    assert load({}, to_environ({name: SETTINGS[name].default for name in given})) == load({}, {})
    assert to_environ({}) == {}
    assert to_environ({"threads_per_rank": 2}) == {}


def test_flags_mean_what_the_variables_mean() -> None:
    arguments = [
        f"{SETTINGS[name].flag}={text}" for name, (text, value) in OTHER.items() if not isinstance(value, bool)
    ]
    arguments += [
        "--qg-nesterov",
        "--staleness-aware",
        "--dynamic-process-sets",
        "--timeline-mark-cycles",
        "--stall-check-disable",
        "--no-report",
    ]
    assert load(parse(*arguments), {}) == load({name: value for name, (_, value) in OTHER.items()}, {})
    assert parse() == {}


def test_horovodruns_flags() -> None:
    given = parse("--fusion-threshold-mb=32", "--cycle-time-ms=2", "--timeline-filename=t.json", "--no-stall-check")
    assert given == {"fusion_threshold": 32 << 20, "cycle_time": 2.0, "timeline": "t.json", "stall_check_disable": True}
    given = parse("--stall-check-warning-time-seconds=3", "--stall-check-shutdown-time-seconds", "4")
    assert given == {"stall_check_time": 3.0, "stall_shutdown_time": 4.0}


def test_inject_may_be_repeated() -> None:
    inject = parse("--inject", "slow=0:10", "--inject", "slow=2:3,slow=3:1.5")["inject"]
    assert slow_factors(str(inject)) == {0: 10.0, 2: 3.0, 3: 1.5}
    assert slow_factors("") == {}
    with pytest.raises(ConfigError, match="slow=0:10,slow=0:2"):
        load(parse("--inject", "slow=0:10", "--inject", "slow=0:2"), {})


def test_a_bad_flag_says_what_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--wire-dtype", "float61")
    error = capsys.readouterr().err
    assert "flag --wire-dtype" in error
    assert "Did you mean float16" in error


def test_help_says_everything_once() -> None:
    parser = argparse.ArgumentParser()
    config.add_arguments(parser)
    text = " ".join(parser.format_help().split())
    for setting in SETTINGS.values():
        assert f"Environment: {setting.environment}." in text
        if not isinstance(setting.kind, Boolean):
            assert setting.kind.metavar in text


def test_mixing_settings_are_the_config_s() -> None:
    given = {field.name: OTHER[field.name][1] for field in dataclasses.fields(MixingSettings)}
    assert dataclasses.asdict(config.mixing_settings(load(given, {}))) == given
    assert config.mixing_settings(load({}, {})) == MixingSettings()


def test_documentation_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == config.markdown_table(), "run: make docs"
    for name, setting in SETTINGS.items():
        assert f"`{name}`" in config.markdown_table()
        assert setting.help in config.markdown_table()


def test_the_command_that_makes_docs_prints_the_page() -> None:
    command = [sys.executable, "-m", "hvd_gossip.config"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=150)
    assert printed.stdout == config.markdown_table()


def test_config_loads_neither_mpi_nor_a_framework() -> None:
    code = (
        "import sys; from hvd_gossip.config import load; load({'algorithm': 'adpsgd', 'topology': 'ring'});"
        "print(sorted({'mpi4py.MPI', 'torch', 'tensorflow'} & set(sys.modules)))"
    )
    command, environ = [sys.executable, "-c", code], os.environ | {"HVD_GOSSIP_ALGORITHM": "sgp"}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environ, timeout=150)
    assert printed.stdout.strip() == "[]"


def test_the_coordinator_gives_a_stalled_name_up_before_the_waiting_thread_does() -> None:
    """Only its answer says which ranks did not submit the name."""
    limits = wait_limits(load({"stall_shutdown_time": 20, "wait_timeout": 100}, {}))
    assert limits == WaitLimits(60.0, 20 + STALL_GRACE)
    assert wait_limits(load({"stall_shutdown_time": 20, "wait_timeout": 25}, {})).timeout == 25
    assert wait_limits(load({"wait_timeout": 100}, {})).timeout == 100


def test_without_the_stall_check_only_the_wait_timeout_is_left() -> None:
    given = {"stall_check_disable": True, "stall_shutdown_time": 20, "wait_timeout": 100}
    assert wait_limits(load(given, {})) == WaitLimits(0.0, 100)
