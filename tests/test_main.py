"""`python -m hvd_gossip`: a script or module runs as under `python`, with horovod being this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvd_gossip.compat import SHADOW, VERSION
from tests.mpi import ROOT

SHOW = """
import json, os, sys
import horovod
print(json.dumps({
    "name": __name__, "argv": sys.argv, "path": sys.path[0], "file": __file__, "main": sys.modules["__main__"].__file__,
    "version": horovod.__version__, "algorithm": os.environ.get("HVD_GOSSIP_ALGORITHM"),
}))
"""


def run(cwd: Path, *arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *python, "-m", "hvd_gossip", *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "show.py").write_text(SHOW)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(SHOW)
    return tmp_path


def test_a_script(folder: Path) -> None:
    done = run(folder, "code/show.py", "-m", "x", "--algorithm", "own")
    assert json.loads(done.stdout) == {
        "name": "__main__",
        "argv": ["code/show.py", "-m", "x", "--algorithm", "own"],
        "path": str(folder / "code"),
        "file": "code/show.py",
        "main": "code/show.py",
        "version": VERSION,
        "algorithm": None,
    }


def test_a_module(folder: Path) -> None:
    shown = json.loads(run(folder, "-m", "package", "-m", "x").stdout)
    file = str(folder / "package" / "__main__.py")
    assert shown["argv"] == [file, "-m", "x"]
    assert (shown["name"], shown["file"], shown["path"]) == ("__main__", file, str(folder))
    assert shown["version"] == VERSION


def test_the_same_as_python_itself(folder: Path) -> None:
    """Horovod's name apart, a script sees what it sees without us."""
    environ = os.environ | {"PYTHONPATH": f"{SHADOW}:{ROOT}"}
    for arguments in (["code/show.py", "1"], ["-m", "package", "1"]):
        alone = subprocess.run([sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True)
        assert json.loads(run(folder, *arguments).stdout) == {
            **json.loads(alone.stdout),
            **({"file": "code/show.py", "main": "code/show.py"} if arguments[0] != "-m" else {}),
        }


def test_settings_before_the_script(folder: Path) -> None:
    shown = json.loads(run(folder, "--algorithm", "sgp", "code/show.py").stdout)
    assert (shown["algorithm"], shown["argv"]) == ("sgp", ["code/show.py"])


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("raise SystemExit", 0),
        ("import sys; sys.exit('why')", 1),
        ("import os; os._exit(4)", 4),
    ],
)
def test_exit_codes(folder: Path, ending: str, code: int) -> None:
    (folder / "script.py").write_text(ending)
    assert run(folder, "script.py").returncode == code


def test_an_uncaught_exception_has_its_traceback(folder: Path) -> None:
    (folder / "script.py").write_text("def fails():\n    raise RuntimeError('no data')\n\nfails()\n")
    done = run(folder, "script.py")
    assert done.returncode == 1
    assert 'script.py", line 2, in fails' in done.stderr
    assert done.stderr.endswith("RuntimeError: no data\n")


def test_a_safe_path_stays_safe(folder: Path) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("Python's -P is there from 3.11 on")
    shown = json.loads(run(folder, "code/show.py", python=("-P",)).stdout)
    assert shown["path"] not in (str(folder), str(folder / "code"), "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected the path of a script, or -m and the name of a module"),
        (["-m"], "expected the path of a script"),
        (["--algorithm", "sgd", "x.py"], "Valid: auto, allreduce"),
        (["--algoritm", "sgp", "x.py"], "Did you mean --algorithm"),
    ],
)
def test_errors_before_anything_runs(folder: Path, arguments: list[str], message: str) -> None:
    done = run(folder, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_missing_script_is_python_s_own_error(folder: Path) -> None:
    done = run(folder, "missing.py")
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
