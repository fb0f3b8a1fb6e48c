"""`import horovod...` in a fresh process: which modules it gives, and what is said when there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from hvd_gossip import compat
from hvd_gossip.compat import SHADOW, VERSION, prepend_path
from hvd_gossip.compat.finder import FRAMEWORKS
from tests.mpi import ROOT

WAYS = ["path", "install"]


def python(way: str, code: str, *path: Path, check: bool = True) -> str:
    """Runs code where horovod is this package: by PYTHONPATH, or by `install()`. Returns its output."""
    entries = [str(ROOT), *map(str, path)]
    if way == "path":
        entries.insert(0, SHADOW)
    else:
        code = "from hvd_gossip import compat; compat.install()\n" + textwrap.dedent(code)
    return run(textwrap.dedent(code), entries, check)


def run(code: str, path: list[str], check: bool = True) -> str:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout if check else done.stderr


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A folder with another horovod, as site-packages has it."""
    package = tmp_path / "horovod"
    (package / "torch").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '0.28.1'\nREAL = True\n")
    (package / "torch" / "__init__.py").write_text("REAL = True\n")
    (package / "spark.py").write_text("REAL = True\n")
    return tmp_path


@pytest.mark.parametrize(
    ("way", "order"), [("path", "horovod.torch, hvd_gossip.torch"), ("install", "hvd_gossip.torch, horovod.torch")]
)
def test_framework_modules_are_one_object_under_both_names(way: str, order: str) -> None:
    code = (
        f"import {order}"
        + """
        import horovod.torch as first
        import hvd_gossip.torch as second
        from horovod import torch as third
        assert first is second is third
        assert first.__name__ == first.__spec__.name == "hvd_gossip.torch"
        from horovod.torch.compression import Compression
        assert Compression is second.Compression
        from horovod.torch.mpi_ops import allreduce, rank
        assert (allreduce, rank) == (second.allreduce, second.rank)
        import importlib, sys
        assert importlib.import_module("horovod.torch") is second
        assert importlib.reload(second) is second
        double = [name for name, module in sys.modules.items() if name.startswith("horovod.torch")
                  and not module.__name__.startswith("hvd_gossip.torch")]
        assert not double, double
        try:
            import horovod.torch.lightning
        except ModuleNotFoundError as error:
            assert "horovod.torch.compression" in str(error), error
        print("same")
    """.replace("\n        ", "\n")
    )
    assert python(way, code) == "same\n"


@pytest.mark.parametrize("way", WAYS)
def test_what_is_shared_by_all_frameworks(way: str) -> None:
    code = """
        from horovod.common.exceptions import HorovodInternalError
        from hvd_gossip.errors import HorovodInternalError as ours
        print(HorovodInternalError is ours)
    """
    assert python(way, code) == "True\n"


@pytest.mark.parametrize("way", WAYS)
def test_run_is_reached_by_all_of_its_names(way: str) -> None:
    code = """
        import horovod, hvd_gossip
        from horovod import run
        from horovod.runner import run as second
        from horovod.runner.launch import run_commandline
        from hvd_gossip.launch.cli import horovodrun
        print(run is second is horovod.run is hvd_gossip.run, run_commandline is horovodrun)
        try:
            horovod.walk
        except AttributeError as error:
            print(error)
    """
    assert python(way, code) == "True True\nmodule 'horovod' has no attribute 'walk'\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_real_horovod_loses(way: str, real: Path) -> None:
    code = """
        import horovod
        from importlib.util import find_spec
        print(horovod.__version__, find_spec("horovod.torch").origin)
    """
    assert python(way, code, real) == f"{VERSION} None\n"


@pytest.mark.parametrize("way", WAYS)
def test_not_even_a_module_that_only_the_real_one_has_is_mixed_in(way: str, real: Path) -> None:
    assert "hvd-gossip answers for Horovod here" in python(way, "import horovod.spark", real, check=False)


def test_without_the_launcher_horovod_is_untouched(real: Path) -> None:
    code = "import hvd_gossip.compat, horovod.torch, horovod.spark; print(horovod.REAL, horovod.torch.REAL)"
    assert run(code, [str(ROOT), str(real)]) == "True True\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("horovod.spark", sorted({*FRAMEWORKS, "horovod.common"})),
        ("horovod.engine", ["horovod.torch"]),
    ],
)
def test_a_missing_module_says_what_there_is(way: str, name: str, there: list[str]) -> None:
    code = f"""
        try:
            import {name}
        except ModuleNotFoundError as error:
            print(error.name, error)
    """
    said = python(way, code)
    assert said.startswith(f"{name} No module named '{name}'. hvd-gossip answers for Horovod here")
    assert all(module in said for module in there)


@pytest.mark.parametrize("way", WAYS)
def test_asking_whether_a_module_is_there_works(way: str) -> None:
    code = """
        import sys
        from importlib.util import find_spec
        print(find_spec("horovod").name, find_spec("horovod.torch").name, "hvd_gossip.torch" in sys.modules)
    """
    assert python(way, code) == "horovod horovod.torch False\n"


@pytest.mark.parametrize("way", WAYS)
def test_what_a_module_of_ours_raises_passes_through(way: str) -> None:
    code = "import sys; sys.modules['tensorflow'] = None  # as if it were not installed\nimport horovod.tensorflow"
    said = python(way, code, check=False)
    assert "pip install 'hvd-gossip[tensorflow]'" in said
    assert "hvd-gossip answers for Horovod" not in said


def test_processes_started_later_see_it_too(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        textwrap.dedent("""
            import multiprocessing, subprocess, sys

            def version(queue):
                import horovod.common.exceptions
                queue.put(horovod.__version__)

            if __name__ == "__main__":
                from hvd_gossip import compat
                compat.install()
                code = "import horovod; print(horovod.__version__)"
                print(subprocess.check_output([sys.executable, "-c", code], text=True), end="")
                context = multiprocessing.get_context("spawn")
                queue = context.Queue()
                process = context.Process(target=version, args=(queue,))
                process.start()
                print(queue.get())
                process.join()
        """)
    )
    command = [sys.executable, str(tmp_path / "main.py")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{VERSION}\n{VERSION}\n"


def test_install_twice_is_install_once() -> None:
    code = "compat.install(); import os, sys; print(sys.path.count(compat.SHADOW), os.environ['PYTHONPATH'].count('shadow'))"
    assert python("install", code) == "1 1\n"
    code = "compat.install(); import sys; print(sum('HorovodFinder' in repr(finder) for finder in sys.meta_path))"
    assert python("install", code) == "1\n"


def test_a_python_without_hvd_gossip_is_told_why() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {SHADOW!r}); import horovod"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "has no hvd_gossip: install it there" in done.stderr


def test_the_version_is_honest_and_passes_version_checks() -> None:
    version = Version(VERSION)
    assert version.base_version == compat.HOROVOD_VERSION
    assert version.local is not None
    assert version.local.startswith("hvd.gossip.")
    assert version >= Version("0.28")
    assert VERSION in SpecifierSet(">=0.19,!=0.20.0")


def test_a_search_path_has_a_folder_first_and_once() -> None:
    assert prepend_path("/x", None) == prepend_path("/x", "") == prepend_path("/x", "/x") == "/x"
    assert prepend_path("/x", "/a:/x::/b") == "/x:/a::/b"
