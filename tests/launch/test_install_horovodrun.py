"""`horovodrun` is installed when asked for, and never in the place of another's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hvd_gossip.compat import VERSION
from hvd_gossip.launch.install_horovodrun import InstallError, install, main, remove

REAL = "#!/usr/bin/python\nfrom horovod.runner.launch import run_commandline\nrun_commandline()\n"


def test_it_is_the_launcher_under_this_python(tmp_path: Path) -> None:
    folder = tmp_path / "a folder's bin"
    folder.mkdir()
    command = install(folder)
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, env={})
    assert done.stdout == f"{VERSION}\n"
    failed = subprocess.run([command, "-np", "2"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("horovodrun: no command")


def test_it_is_renewed_and_removed(tmp_path: Path) -> None:
    assert install(tmp_path) == install(tmp_path) == tmp_path / "horovodrun"
    assert remove(tmp_path) == tmp_path / "horovodrun"
    assert not list(tmp_path.iterdir())


def test_another_s_command_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "horovodrun").write_text(REAL)
    for action in (install, remove):
        with pytest.raises(InstallError, match=r"another's, probably Horovod's own; it is left alone.*--directory"):
            action(tmp_path)
    assert (tmp_path / "horovodrun").read_text() == REAL


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="cannot be written: No such file"):
        install(tmp_path / "none")
    with pytest.raises(InstallError, match="cannot be removed: No such file"):
        remove(tmp_path)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--directory", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path}/horovodrun now starts hvd-gossip-run" in said.out
    assert f"{tmp_path} is not on PATH" in said.err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--directory", str(tmp_path)]) == 0
    assert not capsys.readouterr().err
    assert main(["--directory", str(tmp_path), "--remove"]) == 0
    assert main(["--directory", str(tmp_path), "--remove"]) == 1
    assert "cannot be removed" in capsys.readouterr().err


def test_it_runs_as_the_module_that_the_documentation_names(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hvd_gossip.launch.install_horovodrun", "--directory", str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith(str(tmp_path))
    assert (tmp_path / "horovodrun").exists()
