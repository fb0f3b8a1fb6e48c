"""docs/launching.md and docs/timeline.md: their commands are taken as they stand, and those for one machine are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hvd_gossip import config
from hvd_gossip.launch import cli
from hvd_gossip.launch.arguments import parse
from hvd_gossip.launch.describe import describe_failure
from hvd_gossip.launch.hosts import Host
from hvd_gossip.launch.launcher import LaunchResult
from hvd_gossip.launch.plan import Network, Plan, make_plan
from tests.launch.waiting import LIMIT, TEST_LIMIT
from tests.mpi import ROOT

pytestmark = pytest.mark.timeout(TEST_LIMIT)
PAGES = "".join((ROOT / "docs" / name).read_text() for name in ("launching.md", "timeline.md"))
COMMANDS = sorted(
    {line.split("  #")[0].strip() for line in re.findall(r"^    (hvd-gossip-run .*)$", PAGES, re.MULTILINE)}
)
COMMANDS = [command for command in COMMANDS if not command.startswith("hvd-gossip-run:")]
LOCAL = [command for command in COMMANDS if " -H " not in command and "--hostfile" not in command]
TRAIN = "import os; print('trained', *(os.environ.get(name) for name in ('HVD_GOSSIP_ALGORITHM', 'HOROVOD_TIMELINE')))"


def folder_of_the_reader(folder: Path) -> None:
    """What the pages suppose to be there."""
    (folder / "train.py").write_text(TRAIN)
    (folder / "hosts").write_text("node1 slots=4\nnode2 slots=4\n")
    (yaml,) = re.findall(r"^```yaml\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
    (folder / "horovod.yaml").write_text(yaml)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 6
    assert len(LOCAL) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_the_reader(tmp_path)
    monkeypatch.chdir(tmp_path)
    plans: list[Plan] = []
    monkeypatch.setattr(cli, "launch", lambda plan: plans.append(plan) or LaunchResult(0, (), None, (), 0.0))  # type: ignore[func-returns-value]
    assert cli.main(shlex.split(command)[1:]) == 0
    assert plans[0].job.np in (4, 8, 16)


@pytest.mark.parametrize("command", LOCAL)
def test_a_command_for_one_machine_runs(command: str, tmp_path: Path) -> None:
    folder_of_the_reader(tmp_path)
    words = [str(Path(sys.executable).with_name("hvd-gossip-run")), *shlex.split(command)[1:]]
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    ranks = int(words[words.index("-np") + 1])
    assert done.stdout.count("trained") == ranks
    if "logs" in command:
        assert (tmp_path / "logs" / "rank.3" / "stdout").read_text().startswith("trained")


def test_the_configuration_file_means_what_it_says(tmp_path: Path) -> None:
    folder_of_the_reader(tmp_path)
    arguments = parse(cli._parser("horovodrun"), ["--config-file", str(tmp_path / "horovod.yaml"), "python"])
    assert config.from_arguments(arguments) == {
        "fusion_threshold": 32 << 20,
        "cycle_time": 3.5,
        "timeline": "timeline.json",
        "timeline_mark_cycles": True,
        "stall_check_time": 120.0,
        "algorithm": "adpsgd",
        "topology": "exponential",
    }


def test_the_message_of_a_start_that_fails_is_the_documented_one() -> None:
    (documented,) = re.findall(r"^    hvd-gossip-run: (ranks .*) \.\.\.$", PAGES, re.MULTILINE)
    plan = make_plan(4, ["sh"], hosts=[Host("node1", 2), Host("node2", 2)], network=Network())
    result = LaunchResult(1, (), None, (), 30.0, missing=(2, 3), late=True)
    assert describe_failure(result, plan)[0].startswith(documented)


def test_every_flag_in_the_table_exists() -> None:
    table = PAGES[PAGES.index("| flags | here |") : PAGES.index("What differs from the real one")]
    flags = {flag for flag in re.findall(r"`(--?[a-z][a-z-]*)", table) if not flag.endswith("-")}
    known = cli._parser("horovodrun")._option_string_actions
    assert not flags - set(known)
    assert len(flags) > 30
