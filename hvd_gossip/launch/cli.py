"""hvd-gossip-run: starts a training script on many ranks. `horovodrun` is the same under another name."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from hvd_gossip import config
from hvd_gossip.compat import VERSION
from hvd_gossip.errors import ConfigError, LaunchError, TopologyError
from hvd_gossip.launch import horovod_flags
from hvd_gossip.launch.arguments import command_of, parse
from hvd_gossip.launch.config_file import ConfigFile
from hvd_gossip.launch.describe import (
    check_build,
    describe_failure,
    describe_plan,
    list_algorithms,
    list_topologies,
)
from hvd_gossip.launch.hosts import Host, parse_hostfile, parse_hosts, total_slots
from hvd_gossip.launch.launcher import launch
from hvd_gossip.launch.plan import Network, Output, Plan, make_plan
from hvd_gossip.version import __version__

PROGRAM, HOROVODRUN = "hvd-gossip-run", "horovodrun"
USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Runs the command line; returns the exit code: of the rank that failed first, 2 for an error in the arguments.

    Args:
        argv: the arguments; default: those of this process.
        program: the name under which messages are printed.
    """
    arguments = parse(_parser(program), argv)
    if arguments.list:
        print(arguments.list())
        return 0
    for note in (*arguments.notes, *horovod_flags.describe_ignored(arguments.ignored)):
        print(f"{program}: {note}", file=sys.stderr, flush=True)
    try:
        plan = _plan(arguments)
    except (ConfigError, TopologyError, LaunchError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return USAGE_ERROR
    if arguments.verbose:
        print(describe_plan(plan, program), file=sys.stderr, flush=True)
    result = launch(plan)
    if result.exit_code != 0:
        for line in describe_failure(result, plan):
            print(f"{program}: {line}", file=sys.stderr)
    return result.exit_code


def horovodrun() -> int:
    """The command that `install_horovodrun` installs."""
    return main(program=HOROVODRUN)


def _plan(arguments: argparse.Namespace) -> Plan:
    hosts: tuple[Host, ...] = ()
    if arguments.hosts or arguments.hostfile:
        hosts = parse_hosts(arguments.hosts) if arguments.hosts else parse_hostfile(arguments.hostfile)
    np = arguments.np or total_slots(hosts)
    if np == 0:
        raise ConfigError("how many ranks? Say -np N, or name hosts with their slots")
    binding = arguments.binding_args
    return make_plan(
        np,
        command_of(arguments.command),
        config.from_arguments(arguments),
        hosts,
        mpi_args=[word for text in arguments.mpi_args for word in shlex.split(text)],
        binding_args=None if binding is None else shlex.split(binding),
        network=Network(arguments.ssh_port, arguments.ssh_identity_file, tuple(arguments.interfaces), arguments.tcp),
        output=Output(arguments.output_filename, arguments.prefix_timestamps),
        start_timeout=arguments.start_timeout,
        mpirun=arguments.mpirun,
    )


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program} -np N [OPTIONS] COMMAND [ARGUMENTS]",
        description="Runs a training script on N ranks under MPI. A Horovod script needs no change: there, `import "
        "horovod.torch` means hvd-gossip.",
        epilog=f"Example: {program} -np 4 --algorithm adpsgd python train.py",
        allow_abbrev=False,
    )
    parser.set_defaults(list=None, notes=[])
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what each rank runs")
    version = VERSION if program == HOROVODRUN else f"hvd-gossip {__version__}"
    parser.add_argument("-v", "--version", action="version", version=version)
    for what, flags in (
        (check_build, ("-cb", "--check-build")),
        (list_algorithms, ("--list-algorithms",)),
        (list_topologies, ("--list-topologies",)),
    ):
        parser.add_argument(*flags, dest="list", action="store_const", const=what, help=what.__doc__)
    parser.add_argument("--verbose", action="store_true", help="print MPI's command and the ranks' environment")
    parser.add_argument("--config-file", action=ConfigFile, metavar="FILE", help="YAML whose values stand for flags")
    _add_ranks(parser)
    _add_output(parser)
    config.add_arguments(parser)
    horovod_flags.add_arguments(parser)
    return parser


def _add_ranks(parser: argparse.ArgumentParser) -> None:
    ranks = parser.add_argument_group("Ranks")
    ranks.add_argument("-np", "--num-proc", dest="np", type=_positive, metavar="N", help="number of ranks")
    where = ranks.add_mutually_exclusive_group()
    where.add_argument("-H", "--hosts", metavar="HOST:SLOTS,...", help="hosts, and how many ranks each may run")
    where.add_argument("-hostfile", "--hostfile", metavar="FILE", help='hosts from a file with lines of "HOST slots=N"')
    ranks.add_argument(
        "--start-timeout", type=float, metavar="SECONDS",
        help="end the job unless every rank has started by then, 0: never; default: HOROVOD_START_TIMEOUT, or 30",
    )  # fmt: skip
    ranks.add_argument("--mpirun", metavar="PATH", help="MPI's launcher; default: beside this Python, else on PATH")
    ranks.add_argument(
        "--mpi-args",
        action="append",
        default=[],
        metavar="ARGS",
        help="more arguments for it, in one word: --mpi-args='...'",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("Output of the ranks")
    output.add_argument(
        "--output-filename",
        default="",
        metavar="FOLDER",
        help="write each rank's to FOLDER/rank.N/stdout and stderr too",
    )
    output.add_argument(
        "-prefix-timestamp", "--prefix-output-with-timestamp", dest="prefix_timestamps", action="store_true",
        help="begin each line with the time",
    )  # fmt: skip


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of ranks, at least 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
