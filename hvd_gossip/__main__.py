"""Runs a script or module in which `import horovod` means this package: `python -m hvd_gossip train.py`.

For ranks that somebody else starts: `mpirun -n 4 python -m hvd_gossip train.py`, `srun --mpi=pmix python -m hvd_gossip ...`.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence

from hvd_gossip import compat, config
from hvd_gossip.launch.arguments import parse
from hvd_gossip.version import __version__


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what the arguments name as `python` would run it; its exceptions and SystemExit pass through.

    Raises:
        SystemExit: with code 2 and a message for arguments that name nothing or hold an invalid setting.
    """
    parser = _parser()
    arguments = parse(parser, argv)
    if not arguments.module and not arguments.script:
        parser.error("expected the path of a script, or -m and the name of a module")
    os.environ.update(config.to_environ(config.from_arguments(arguments)))
    compat.install()
    if arguments.module:
        _run_module(*arguments.module)
    else:
        _run_script(*arguments.script)


def _run_module(name: str, *args: str) -> None:
    sys.argv = [sys.argv[0], *args]  # runpy puts the module's file in front
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_script(path: str, *args: str) -> None:
    sys.argv = [path, *args]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.abspath(path))  # instead of the working directory, which -m put there
    runpy.run_path(path, run_name="__main__")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hvd_gossip",
        usage="python -m hvd_gossip [SETTINGS] (SCRIPT | -m MODULE) [ARGUMENTS]",
        description="Runs a training script in which `import horovod` means hvd-gossip.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hvd-gossip {__version__}")
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module")
    parser.add_argument("script", nargs=argparse.REMAINDER, metavar="SCRIPT", help="run a file")
    config.add_arguments(parser)
    return parser


if __name__ == "__main__":
    main()
