"""Every flag that horovodrun documents is taken: with its effect, with a word on having none, or refused with the reason."""

from __future__ import annotations

import argparse
import re

import pytest

from hvd_gossip import config
from hvd_gossip.launch import cli
from hvd_gossip.launch.arguments import parse
from hvd_gossip.launch.horovod_flags import describe_ignored

# fmt: off
DOCUMENTED = [
    "-h", "--help", "-v", "--version", "-np", "--num-proc", "-cb", "--check-build", "--disable-cache",
    "--start-timeout", "--network-interfaces", "--network-interface", "--output-filename", "--verbose",
    "--config-file", "-p", "--ssh-port", "-i", "--ssh-identity-file", "--fusion-threshold-mb", "--cycle-time-ms",
    "--cache-capacity", "--hierarchical-allreduce", "--no-hierarchical-allreduce", "--hierarchical-allgather",
    "--no-hierarchical-allgather", "--autotune", "--no-autotune", "--autotune-log-file",
    "--autotune-warmup-samples", "--autotune-steps-per-sample", "--autotune-bayes-opt-max-samples",
    "--autotune-gaussian-process-noise", "--min-np", "--min-num-proc", "--max-np", "--max-num-proc",
    "--slots-per-host", "--elastic-timeout", "--reset-limit", "--blacklist-cooldown-range", "--timeline-filename",
    "--timeline-mark-cycles", "--no-timeline-mark-cycles", "--no-stall-check", "--stall-check",
    "--stall-check-warning-time-seconds", "--stall-check-shutdown-time-seconds", "--mpi-threads-disable",
    "--no-mpi-threads-disable", "--mpi-args", "--tcp", "--binding-args", "--num-nccl-streams", "--thread-affinity",
    "--gloo-timeout-seconds", "--log-level", "--log-with-timestamp", "--log-without-timestamp", "-prefix-timestamp",
    "--prefix-output-with-timestamp", "--log-hide-timestamp", "--no-log-hide-timestamp", "-H", "--hosts",
    "-hostfile", "--hostfile", "--host-discovery-script", "--gloo", "--mpi", "--jsrun",
]
# fmt: on


def parsed(*argv: str) -> argparse.Namespace:
    return parse(cli._parser("horovodrun"), [*argv, "python", "train.py"])


@pytest.mark.parametrize("flag", DOCUMENTED)
def test_a_documented_flag_exists(flag: str) -> None:
    assert flag in cli._parser("horovodrun")._option_string_actions


@pytest.mark.parametrize(
    ("argv", "settings"),
    [
        (["--fusion-threshold-mb", "32"], {"fusion_threshold": 32 << 20}),
        (["--cycle-time-ms", "3.5"], {"cycle_time": 3.5}),
        (["--cache-capacity", "0"], {"cache_capacity": 0}),
        (
            ["--timeline-filename", "t.json", "--timeline-mark-cycles"],
            {"timeline": "t.json", "timeline_mark_cycles": True},
        ),
        (["--no-timeline-mark-cycles"], {"timeline_mark_cycles": False}),
        (["--no-stall-check"], {"stall_check_disable": True}),
        (["--stall-check"], {"stall_check_disable": False}),
        (["--stall-check-warning-time-seconds", "9"], {"stall_check_time": 9.0}),
        (["--stall-check-shutdown-time-seconds", "99"], {"stall_shutdown_time": 99.0}),
        (["--log-level", "DEBUG"], {"log_level": "debug"}),
        (["--mpi-threads-disable"], {"mpi_thread_level": "serialized"}),
        (["--no-mpi-threads-disable"], {"mpi_thread_level": "multiple"}),
    ],
)
def test_flags_that_are_settings(argv: list[str], settings: dict[str, object]) -> None:
    assert config.from_arguments(parsed(*argv)) == settings


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--disable-cache"], "--disable-cache has no effect here: launches remember nothing of earlier ones"),
        (["--gloo"], "--gloo has no effect here: ranks communicate over MPI, there is no Gloo"),
        (["--num-nccl-streams", "2"], "--num-nccl-streams has no effect here: collectives do not run over NCCL"),
        (["--hierarchical-allreduce"], "--hierarchical-allreduce has no effect here: how a collective is carried out"),
        (["--thread-affinity", "1"], "--thread-affinity has no effect here: "),
        (["--log-without-timestamp"], "--log-without-timestamp has no effect here: "),
    ],
)
def test_flags_without_an_effect_say_so(argv: list[str], said: str) -> None:
    (line,) = describe_ignored(parsed(*argv).ignored)
    assert line.startswith(said)


def test_flags_of_one_kind_share_a_sentence() -> None:
    """horovod#615: the parameters that autotune tries, which scripts pass, are taken; they are said to do nothing here."""
    argv = ["--autotune", "--autotune-log-file", "x.csv", "--autotune-warmup-samples", "5", "--autotune"]
    assert describe_ignored(parsed(*argv).ignored) == [
        "--autotune, --autotune-log-file, --autotune-warmup-samples have no effect here: nothing is tuned while training, "
        "and values stay as they are set"
    ]


@pytest.mark.parametrize("flag", ["--mpi", "--no-autotune", "--no-hierarchical-allreduce", "--log-with-timestamp"])
def test_asking_for_what_holds_anyway_needs_no_word(flag: str) -> None:
    arguments = parsed(flag)
    assert not arguments.ignored
    assert config.from_arguments(arguments) == {}


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--min-np", "2"], "--min-np: elastic launches, with hosts that come and go, are not built yet"),
        (["--max-num-proc", "4"], "--max-num-proc: elastic launches"),
        (["--host-discovery-script", "./hosts.sh"], "--host-discovery-script: elastic launches"),
        (["--jsrun"], "--jsrun: this launcher works through mpirun.*jsrun -n N python -m hvd_gossip train.py"),
        (["--autotune-warmup-samples", "x"], "invalid int value"),
    ],
)
def test_what_would_change_the_job_is_refused(argv: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        parsed("-np", "2", *argv)
    assert exited.value.code == 2
    assert re.search(reason, capsys.readouterr().err)


def test_network_flags() -> None:
    arguments = parsed(
        "-p", "12345", "-i", "key", "--tcp", "--network-interfaces", "eth0,eth1", "--network-interface", "eth2"
    )
    assert (arguments.ssh_port, arguments.ssh_identity_file, arguments.tcp) == (12345, "key", True)
    assert arguments.interfaces == ["eth0", "eth1", "eth2"]
    assert parsed().interfaces == []


def test_output_and_binding_flags() -> None:
    arguments = parsed("--output-filename", "logs", "-prefix-timestamp", "--binding-args=--rankfile myrankfile")
    assert (arguments.output_filename, arguments.prefix_timestamps) == ("logs", True)
    assert arguments.binding_args == "--rankfile myrankfile"
