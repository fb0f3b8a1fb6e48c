"""hvd-gossip-run: its options, its errors before anything starts, and what it says when a rank has failed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.compat import VERSION
from hvd_gossip.config import SETTINGS
from hvd_gossip.launch import cli
from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.launcher import LaunchResult
from hvd_gossip.launch.plan import AGENT, Plan
from hvd_gossip.topology import TOPOLOGIES
from hvd_gossip.version import __version__


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """What would have been run, instead of running it."""
    made: list[Plan] = []

    def note(plan: Plan) -> LaunchResult:
        made.append(plan)
        return result()

    monkeypatch.setattr(cli, "launch", note)
    return made


def result(exit_code: int = 0) -> LaunchResult:
    return LaunchResult(exit_code, (), None, ("mpirun",), 20.0)


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command line that must not run: exit code 2."""
    try:
        code: object = cli.main(argv)
    except SystemExit as exited:
        code = exited.code
    assert code == cli.USAGE_ERROR
    return capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-np", "--num-proc"])
def test_options_and_command_become_a_plan(flag: str, plans: list[Plan]) -> None:
    argv = [flag, "3", "--algorithm", "adpsgd", "--topology=ring", "--fusion-threshold-mb", "2", "--no-report"]
    argv += ["--inject", "slow=0:2", "--inject", "slow=1:3", "sh", "-c", "true", "--algorithm", "x"]
    assert cli.main(argv) == 0
    (plan,) = plans
    assert plan.job.np == 3
    assert plan.job.command == (*AGENT, "sh", "-c", "true", "--algorithm", "x")
    expected = {
        "HVD_GOSSIP_ALGORITHM": "adpsgd",
        "HVD_GOSSIP_TOPOLOGY": "ring",
        "HOROVOD_FUSION_THRESHOLD": str(2 << 20),
        "HVD_GOSSIP_REPORT": "0",
        "HVD_GOSSIP_INJECT": "slow=0:2,slow=1:3",
    }
    assert expected.items() <= plan.environment.items()


@pytest.mark.parametrize("flag", ["-H", "--hosts"])
def test_hosts_give_the_number_of_ranks(flag: str, plans: list[Plan]) -> None:
    assert cli.main([flag, "a:4,b:2", "python", "train.py"]) == 0
    assert (plans[0].job.np, plans[0].job.hosts) == (6, (Host("a", 4), Host("b", 2)))


@pytest.mark.parametrize("flag", ["-hostfile", "--hostfile"])
def test_hostfiles(flag: str, plans: list[Plan], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("a slots=4\n")
    assert cli.main(["-np", "2", flag, str(tmp_path / "hosts"), "python", "train.py"]) == 0
    assert (plans[0].job.np, plans[0].job.hosts) == (2, (Host("a", 4),))


def test_arguments_for_mpi_are_passed_on(plans: list[Plan]) -> None:
    argv = ["-np", "2", "--mpi-args=--mca btl 'self,tcp'", "--mpi-args=--quiet", "sh"]
    assert cli.main(argv) == 0
    assert plans[0].job.mpi_args == ("--mca", "btl", "self,tcp", "--quiet")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["-np", "2", "--algorithm", "adspgd", "sh"],
            r"algorithm='adspgd'.*Did you mean adpsgd.*Valid: auto, allreduce, ",
        ),
        (["-np", "2", "--topology", "rnig", "sh"], r"Did you mean ring.*Valid: auto, ring"),
        (
            ["-np", "2", "--algoritm", "sgp", "sh"],
            r"unknown option --algoritm. Did you mean --algorithm.*Valid options: ",
        ),
        (["-np", "2", "--inject", "slow=2:10", "sh"], "slows rank 2, but the ranks are 0 to 1"),
        (["-np", "2", "--inject", "quick=1:2", "sh"], "slow=RANK:FACTOR"),
        (["-np", "2", "--mixing-period", "0", "sh"], "an integer >= 1"),
        (["-np", "6", "--algorithm", "dpsgd", "--topology", "hypercube", "sh"], "power of two"),
        (["-np", "none", "sh"], "expected a number of ranks, at least 1, not 'none'"),
        (["-np", "0", "sh"], "at least 1"),
        (["sh"], "how many ranks\\? Say -np N"),
        (["-np", "2"], "no command"),
        (["-np", "2", "missing.py"], "no file missing.py"),
        (["-np", "2", "-H", "a:x", "sh"], "expected HOST:SLOTS"),
        (["-np", "2", "-H", "a:2", "--hostfile", "x", "sh"], "not allowed with argument"),
        (["-np", "2", "--mpirun", "/no/mpirun", "sh"], "/no/mpirun --version failed"),
    ],
)
def test_errors_come_before_mpi(
    argv: list[str], message: str, plans: list[Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(message, refused(argv, capsys))
    assert not plans


def test_help_has_every_setting_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["--help"])
    assert exited.value.code == 0
    text = capsys.readouterr().out
    assert all(setting.flag in text for setting in SETTINGS.values())
    assert all(f"\n{setting.group}:" in text for setting in SETTINGS.values())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"hvd-gossip {__version__}\n"


def test_horovodrun_is_the_same_under_its_own_name(plans: list[Plan], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-np", "2", "--autotune", "sh"], program=cli.HOROVODRUN) == 0
    assert capsys.readouterr().err.startswith("horovodrun: --autotune has no effect here: ")
    with pytest.raises(SystemExit):
        cli.main(["--version"], program=cli.HOROVODRUN)
    assert capsys.readouterr().out == f"{VERSION}\n"


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list-algorithms"]) == 0
    algorithms = capsys.readouterr().out
    first = [line.split(" ")[1] for line in algorithms.splitlines() if line.startswith(" ") and line[1:2].isalnum()]
    assert first == list(ALGORITHMS)
    assert ALGORITHMS["adpsgd"].default_topology in algorithms
    assert cli.main(["--list-topologies"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(TOPOLOGIES)


def test_verbose_shows_the_command_and_the_environment_without_others_secrets(
    plans: list[Plan], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret")
    assert cli.main(["-np", "2", "--verbose", "--seed", "4", "sh"]) == 0
    said = capsys.readouterr().err
    assert plans[0].mpirun.path in said
    assert "-n 2 " in said
    assert "  HVD_GOSSIP_SEED=4\n" in said
    assert "  OMP_NUM_THREADS=" in said
    assert "WANDB_API_KEY" in said
    assert "a-secret" not in said


def test_a_real_failure_ends_the_program_with_its_code(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys; print('last words'); sys.exit(9 if '1' in map(os.environ.get, sys.argv[1:]) else 0)"
    assert cli.main(["-np", "2", sys.executable, "-c", code, "PMIX_RANK", "PMI_RANK"]) == 9
    said = capfd.readouterr().err
    assert re.search(r"rank 1 on \S+ failed first, after .*: exit code 9\n.*output:\n  last words\n", said)
