"""Those of horovodrun's flags that are neither a setting nor about ranks and hosts: with an effect, without one, refused.

`hvd_gossip.config` gives the settings their flags, under Horovod's names too (`--cycle-time-ms`); `cli` the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

_NO_AUTOTUNING = "nothing is tuned while training, and values stay as they are set"
_NO_GLOO = "ranks communicate over MPI, there is no Gloo"
_WITHOUT_EFFECT: dict[str, tuple[dict[str, type | None], str]] = {
    "cache": ({"--disable-cache": None}, "launches remember nothing of earlier ones"),
    "hierarchy": (
        {"--hierarchical-allreduce": None, "--hierarchical-allgather": None},
        "how a collective is carried out follows from its size, and the result is the same",
    ),
    "autotune": (
        {
            "--autotune": None,
            "--autotune-log-file": str,
            "--autotune-warmup-samples": int,
            "--autotune-steps-per-sample": int,
            "--autotune-bayes-opt-max-samples": int,
            "--autotune-gaussian-process-noise": float,
        },
        _NO_AUTOTUNING,
    ),
    "gloo": ({"--gloo": None, "--gloo-timeout-seconds": int}, _NO_GLOO),
    "nccl": ({"--num-nccl-streams": int}, "collectives do not run over NCCL"),
    "affinity": ({"--thread-affinity": int}, "the progress thread is not bound to a core"),
    "time": ({"--log-without-timestamp": None, "--log-hide-timestamp": None}, "log lines always say the time"),
}
"""Flags that change no result where they change something in Horovod: by topic, with their values' types, and why."""
_AS_IT_IS = (
    "--mpi",
    "--no-autotune",
    "--no-hierarchical-allreduce",
    "--no-hierarchical-allgather",
    "--log-with-timestamp",
    "--no-log-hide-timestamp",
)
"""Flags that ask for what holds anyway."""
_ELASTIC = "elastic launches, with hosts that come and go, are not built yet. Start a fixed number of ranks: -np N"
_REFUSED = {
    "--min-np": ("--min-num-proc",),
    "--max-np": ("--max-num-proc",),
    "--slots-per-host": (),
    "--elastic-timeout": (),
    "--blacklist-cooldown-range": (),
    "--host-discovery-script": (),
}


class Ignored(argparse.Action):
    """Notes in `namespace.ignored`, {reason: flags}, that a flag was given; `const` is the reason."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        flags = namespace.ignored.setdefault(str(self.const), [])
        if option not in flags:
            flags.append(option)


class Refused(argparse.Action):
    """Ends the program with an error; `const` is the reason."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        parser.error(f"{option}: {self.const}")


class Interfaces(argparse.Action):
    """Collects names of network interfaces, given together with commas or one by one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        names = [name.strip() for name in str(values).split(",") if name.strip()]
        setattr(namespace, self.dest, list(dict.fromkeys([*getattr(namespace, self.dest), *names])))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds them all. The namespace gets ssh_port, ssh_identity_file, interfaces, tcp, binding_args and ignored."""
    parser.set_defaults(ignored={}, interfaces=[])
    _add_network(parser.add_argument_group("Network"))
    _add_opposites(parser)
    ignored = parser.add_argument_group("Taken from horovodrun's command lines, without effect")
    for flags, reason in _WITHOUT_EFFECT.values():
        for flag, kind in flags.items():
            takes: dict[str, Any] = {"nargs": 0} if kind is None else {"type": kind, "metavar": "X"}
            ignored.add_argument(flag, dest="ignored", action=Ignored, const=reason, help=f"{reason}.", **takes)
    for flag in _AS_IT_IS:
        ignored.add_argument(flag, dest="as_it_is", action="store_const", const=None, help=argparse.SUPPRESS)
    refused = parser.add_argument_group("Not built yet")
    for flag, others in _REFUSED.items():
        refused.add_argument(flag, *others, dest="refused", action=Refused, nargs="?", const=_ELASTIC, help="elastic")
    refused.add_argument(
        "--jsrun", dest="refused", action=Refused, nargs=0, help="LSF's launcher",
        const="this launcher works through mpirun. With LSF's: jsrun -n N python -m hvd_gossip train.py",
    )  # fmt: skip


def describe_ignored(ignored: dict[str, Sequence[str]]) -> list[str]:
    """One sentence a reason: which flags have no effect, and why."""
    return [
        f"{', '.join(flags)} {'has' if len(flags) == 1 else 'have'} no effect here: {reason}"
        for reason, flags in ignored.items()
    ]


def _add_network(group: Any) -> None:
    group.add_argument("-p", "--ssh-port", type=int, metavar="PORT", help="ssh's port on the other hosts")
    group.add_argument("-i", "--ssh-identity-file", metavar="FILE", help="the key that ssh shows")
    group.add_argument(
        "--network-interfaces", "--network-interface", dest="interfaces", action=Interfaces, metavar="NAME,NAME",
        help="use these network interfaces only",
    )  # fmt: skip
    group.add_argument("--tcp", action="store_true", help="between hosts use TCP only, whatever else there is")
    group.add_argument(
        "--binding-args", metavar="ARGS",
        help="MPI's arguments on where in a machine ranks run, instead of none being bound: --binding-args='...'",
    )  # fmt: skip


def _add_opposites(parser: argparse.ArgumentParser) -> None:
    """Horovod's switches that set a setting of another name or another sense."""
    group = parser.add_argument_group("Horovod's switches")
    group.add_argument(
        "--stall-check", dest="stall_check_disable", action="store_false", default=argparse.SUPPRESS,
        help="warn of stalls (the default)",
    )  # fmt: skip
    for flag, level in (("--mpi-threads-disable", "serialized"), ("--no-mpi-threads-disable", "multiple")):
        group.add_argument(
            flag, dest="mpi_thread_level", action="store_const", const=level, default=argparse.SUPPRESS,
            help=f"the same as --mpi-thread-level {level}",
        )  # fmt: skip
