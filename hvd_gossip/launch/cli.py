"""hvd-gossip-run: starts a training script on many ranks."""

from __future__ import annotations

import argparse
import inspect
import shlex
import signal
import sys
from collections.abc import Sequence

from hvd_gossip import config
from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.launch.arguments import command_of, parse
from hvd_gossip.launch.hosts import Host, parse_hostfile, parse_hosts, total_slots
from hvd_gossip.launch.launcher import LaunchResult, execute
from hvd_gossip.launch.mpirun import LaunchError
from hvd_gossip.launch.plan import Plan, make_plan
from hvd_gossip.launch.supervise import Patience
from hvd_gossip.topology import TOPOLOGIES
from hvd_gossip.version import __version__

PROGRAM = "hvd-gossip-run"
USAGE_ERROR = 2
_SHOWN = ("HVD_GOSSIP_", "HOROVOD_", "PYTHONPATH", "PYTHONUNBUFFERED", "PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: of the rank that failed first, 2 for an error in the arguments."""
    arguments = parse(_parser(), argv)
    if arguments.list:
        print(arguments.list())
        return 0
    try:
        plan = _plan(arguments)
    except (ConfigError, TopologyError, LaunchError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return USAGE_ERROR
    if arguments.verbose:
        print(describe_plan(plan), file=sys.stderr, flush=True)
    result = execute(plan, Patience())
    if result.exit_code != 0:
        print(describe_failure(result), file=sys.stderr)
    return result.exit_code


def list_algorithms() -> str:
    """Every algorithm: its name, its default topology, and the first line of its documentation."""
    lines = ["Algorithms (--algorithm), with the topology that auto means:"]
    for name, kind in ALGORITHMS.items():
        summary = (inspect.getdoc(kind) or "").partition("\n")[0]
        topology = "none" if kind.needs == "none" else kind.default_topology
        lines.append(f"  {name:<12} {topology:<22} {summary}")
    return "\n".join(lines)


def list_topologies() -> str:
    """Every topology that has a name, in a line each."""
    return "\n".join(["Topologies (--topology):", *(f"  {name:<22} {text}" for name, text in TOPOLOGIES.items())])


def describe_plan(plan: Plan) -> str:
    """What --verbose says: the MPI launcher, its command, and the environment of the ranks."""
    shown = {name: text for name, text in sorted(plan.environment.items()) if _is_shown(name)}
    others = [name for name in plan.job.exported if name not in shown]
    return "\n".join(
        [
            f"{PROGRAM}: {plan.mpirun.flavour.value} ({plan.mpirun.version}), {plan.mpirun.path}",
            f"{PROGRAM}: {shlex.join(plan.command)}",
            f"{PROGRAM}: environment of the ranks:",
            *(f"  {name}={text}" for name, text in shown.items()),
            f"  and, unchanged: {' '.join(others)}",
        ]
    )


def describe_failure(result: LaunchResult) -> str:
    """Which rank failed first, of what, and the end of its output; or what else is known."""
    if result.stopped_by:
        return f"{PROGRAM}: stopped by {signal.Signals(result.stopped_by).name} after {result.seconds:.1f} s"
    first = result.first_failure
    if first is None:
        return (
            f"{PROGRAM}: MPI ended the job with exit code {result.exit_code} after {result.seconds:.1f} s, before any "
            "rank's end was seen; what MPI and the ranks said is above"
        )
    lines = [f"{PROGRAM}: rank {first.rank} on {first.host} failed first, after {first.seconds:.1f} s: {first.cause()}"]
    others = sorted(end.rank for end in result.ends if end.failed and not end.told and end is not first)
    if others:
        lines.append(f"{PROGRAM}: then failed rank{'s' * (len(others) > 1)} {', '.join(map(str, others))}")
    if first.tail:
        lines.append(f"{PROGRAM}: the end of rank {first.rank}'s output:")
        lines += [f"  {line}" for line in first.tail]
    return "\n".join(lines)


def _plan(arguments: argparse.Namespace) -> Plan:
    hosts: tuple[Host, ...] = ()
    if arguments.hosts or arguments.hostfile:
        hosts = parse_hosts(arguments.hosts) if arguments.hosts else parse_hostfile(arguments.hostfile)
    np = arguments.np or total_slots(hosts)
    if np == 0:
        raise ConfigError("how many ranks? Say -np N, or name hosts with their slots")
    mpi_args = [word for text in arguments.mpi_args for word in shlex.split(text)]
    return make_plan(
        np, command_of(arguments.command), config.from_arguments(arguments), hosts, mpi_args, arguments.mpirun
    )


def _is_shown(name: str) -> bool:
    return name.startswith(_SHOWN) or name.endswith("_THREADS")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} -np N [OPTIONS] COMMAND [ARGUMENTS]",
        description="Runs a training script on N ranks under MPI. A Horovod script needs no change: there, `import "
        "horovod.torch` means hvd-gossip.",
        epilog=f"Example: {PROGRAM} -np 4 --algorithm adpsgd python train.py",
        allow_abbrev=False,
    )
    parser.set_defaults(list=None)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what each rank runs")
    parser.add_argument("-v", "--version", action="version", version=f"hvd-gossip {__version__}")
    for what in (list_algorithms, list_topologies):
        flag = "--" + what.__name__.replace("_", "-")
        parser.add_argument(flag, dest="list", action="store_const", const=what, help=what.__doc__)
    parser.add_argument("--verbose", action="store_true", help="print MPI's command and the ranks' environment")
    ranks = parser.add_argument_group("Ranks")
    ranks.add_argument("-np", "--num-proc", dest="np", type=_positive, metavar="N", help="number of ranks")
    where = ranks.add_mutually_exclusive_group()
    where.add_argument("-H", "--hosts", metavar="HOST:SLOTS,...", help="hosts, and how many ranks each may run")
    where.add_argument("-hostfile", "--hostfile", metavar="FILE", help='hosts from a file with lines of "HOST slots=N"')
    ranks.add_argument("--mpirun", metavar="PATH", help="MPI's launcher; default: beside this Python, else on PATH")
    ranks.add_argument(
        "--mpi-args",
        action="append",
        default=[],
        metavar="ARGS",
        help="more arguments for it, in one word: --mpi-args='...'",
    )
    config.add_arguments(parser)
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a number of ranks, at least 1, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
