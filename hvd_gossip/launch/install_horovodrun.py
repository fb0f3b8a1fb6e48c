"""Makes a `horovodrun` command that is hvd-gossip-run: `python -m hvd_gossip.launch.install_horovodrun`.

By explicit wish only, so that a real Horovod's command is never replaced by installing this package: see
docs/decisions/0008-horovodrun-is-installed-by-a-command.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from hvd_gossip.errors import HvdGossipError

NAME = "horovodrun"
_MARK = "# hvd-gossip's horovodrun, made by python -m hvd_gossip.launch.install_horovodrun"
_SCRIPT = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
{mark}
import sys

from hvd_gossip.launch.cli import horovodrun

sys.exit(horovodrun())
"""


class InstallError(HvdGossipError, RuntimeError):
    """The command cannot be installed or removed; the message says why."""


def install(folder: Path) -> Path:
    """Writes the command into a folder; returns its path. One of ours that is there already is renewed.

    Raises:
        InstallError: somebody else's `horovodrun` is there, or the folder cannot be written to.
    """
    path = folder / NAME
    _require_ours(path)
    try:
        path.write_text(_SCRIPT.format(python=shlex.quote(sys.executable), mark=_MARK))
        path.chmod(0o755)
    except OSError as error:
        raise InstallError(f"{path} cannot be written: {error.strerror}; choose another folder: --directory") from error
    return path


def remove(folder: Path) -> Path:
    """Removes our command from a folder; returns its path.

    Raises:
        InstallError: there is none, or it is somebody else's.
    """
    path = folder / NAME
    _require_ours(path)
    try:
        path.unlink()
    except OSError as error:
        raise InstallError(f"{path} cannot be removed: {error.strerror}") from error
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}" if __spec__ else None, description=__doc__)
    parser.add_argument(
        "--directory", type=Path, default=Path(sysconfig.get_path("scripts")), metavar="FOLDER",
        help="default: where this Python's commands are",
    )  # fmt: skip
    parser.add_argument("--remove", action="store_true", help="remove the command instead")
    arguments = parser.parse_args(argv)
    try:
        if arguments.remove:
            print(f"removed {remove(arguments.directory)}")
        else:
            path = install(arguments.directory)
            print(f"{path} now starts hvd-gossip-run; `pip uninstall` does not remove it, --remove does")
            _warn_of_path(path)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _require_ours(path: Path) -> None:
    if path.exists() and _MARK not in path.read_text(errors="replace"):
        raise InstallError(
            f"{path} is another's, probably Horovod's own; it is left alone. Uninstall Horovod, or choose a folder that "
            "comes before it on PATH: --directory"
        )


def _warn_of_path(path: Path) -> None:
    folders = [os.path.abspath(folder) for folder in os.get_exec_path()]
    if str(path.parent.absolute()) not in folders:
        print(f"{path.parent} is not on PATH: add it, or call {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
