"""`hvd_gossip.run`, Horovod's `horovod.run`: calls a function on every rank and returns what it returned."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import pickle
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import cloudpickle  # type: ignore[import-untyped]

from hvd_gossip.errors import LaunchError, RankFailedError
from hvd_gossip.launch.describe import describe_failure, describe_plan
from hvd_gossip.launch.function_rank import LENGTH, VARIABLE, Outcome
from hvd_gossip.launch.hosts import Host, parse_hostfile, parse_hosts
from hvd_gossip.launch.launcher import LaunchResult, launch
from hvd_gossip.launch.plan import Network, Output, Plan, make_plan
from hvd_gossip.launch.server import TokenServer

R = TypeVar("R")
NAME = "hvd_gossip.run"
LAST_WORDS_S = 10.0
"""How long to wait for results that are still on their way when the ranks have ended."""
_log = logging.getLogger("hvd_gossip")


def run(
    func: Callable[..., R],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    num_proc: int = 1,
    min_num_proc: int | None = None,
    max_num_proc: int | None = None,
    slots: int | None = None,
    reset_limit: int | None = None,
    cooldown_range: Sequence[int] | None = None,
    hosts: str | None = None,
    hostfile: str | None = None,
    start_timeout: float | None = None,
    ssh_port: int | None = None,
    ssh_identity_file: str | None = None,
    disable_cache: bool | None = None,
    output_filename: str | None = None,
    verbose: bool | int | None = None,
    use_gloo: bool | None = None,
    use_mpi: bool | None = None,
    mpi_args: str | None = None,
    network_interface: str | None = None,
    executable: str | None = None,
    np: int | None = None,
    min_np: int | None = None,
    max_np: int | None = None,
    *,
    mpirun: str | None = None,
    **settings: object,
) -> list[R]:
    """Calls `func(*args, **kwargs)` on `num_proc` ranks and returns the results, in the order of the ranks.

    The signature is Horovod 0.28.1's `horovod.run`. Function, arguments and results travel by cloudpickle: closures and
    functions of the main script by their code, functions of modules by name.

    Args:
        func: what each rank calls; it calls `hvd.init()` itself.
        args, kwargs: its arguments.
        num_proc: number of ranks; `np` is its deprecated name.
        min_num_proc, max_num_proc, min_np, max_np, slots, reset_limit, cooldown_range: elastic runs: not built yet.
        hosts: "host1:2,host2:4"; default: this host.
        hostfile: path of a file with lines of "host slots=N".
        start_timeout: seconds in which the ranks must have started; default: HOROVOD_START_TIMEOUT, or 30.
        ssh_port, ssh_identity_file: for the other hosts.
        disable_cache: without effect: nothing is remembered from one launch to the next.
        output_filename: folder; each rank's output goes to FOLDER/rank.N/stdout and stderr as well.
        verbose: print MPI's command and the ranks' environment.
        use_gloo: without effect, with a warning: ranks communicate over MPI.
        use_mpi: what holds anyway.
        mpi_args: more arguments for MPI's launcher, in one text.
        network_interface: names of network interfaces to use, joined by commas.
        executable: the Python of the ranks; default: this one.
        mpirun: path of MPI's launcher; default: the one beside this Python, else the first on PATH.
        settings: settings by name, such as `algorithm` and `topology`.

    Raises:
        RankFailedError: a rank raised or ended. The others are ended.
        LaunchError: the ranks could not be started, or not in time.
        ConfigError: an invalid argument or setting. ValueError: arguments that exclude each other.
        NotImplementedError: arguments of elastic runs.
    """
    elastic = {
        "min_num_proc": min_num_proc, "max_num_proc": max_num_proc, "min_np": min_np, "max_np": max_np,
        "slots": slots, "reset_limit": reset_limit, "cooldown_range": cooldown_range,
    }  # fmt: skip
    _check(elastic, hosts, hostfile, use_gloo, use_mpi)
    plan = make_plan(
        _number(num_proc, np),
        [executable or sys.executable, "-m", "hvd_gossip.launch.function_rank"],
        settings,
        _hosts(hosts, hostfile),
        mpi_args=shlex.split(mpi_args or ""),
        network=Network(ssh_port, ssh_identity_file, _names(network_interface)),
        output=Output(output_filename or ""),
        start_timeout=start_timeout,
        mpirun=mpirun,
    )
    if verbose:
        print(describe_plan(plan, NAME), file=sys.stderr, flush=True)
    call = pickle.dumps((sys.path, cloudpickle.dumps((func, tuple(args), dict(kwargs or {})))))
    with FunctionServer(plan, call) as server:
        result = launch(server.invited(plan))
        server.wait_gone(LAST_WORDS_S)
    return _results(server, result, plan)


class FunctionServer(TokenServer):
    """Gives ranks the call and takes their outcomes.

    Args:
        plan: the job.
        call: what a rank receives.

    Attributes:
        outcomes: by rank, in the order in which they came.
    """

    def __init__(self, plan: Plan, call: bytes) -> None:
        super().__init__(plan.remote, plan.job.interfaces, "function")
        self._call = call
        self.outcomes: dict[int, Outcome] = {}

    def invited(self, plan: Plan) -> Plan:
        """The plan, whose ranks are told where this server is."""
        told = json.dumps({"addresses": self.addresses, "token": self.token})
        job = dataclasses.replace(plan.job, exported=(*plan.job.exported, VARIABLE))
        return dataclasses.replace(plan, job=job, environment={**plan.environment, VARIABLE: told})

    async def attend(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Mapping[str, Any]
    ) -> None:
        writer.write(LENGTH.pack(len(self._call)))
        writer.write(self._call)
        await writer.drain()
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        self.outcomes[hello["rank"]] = pickle.loads(await reader.readexactly(length))


def _check(
    elastic: Mapping[str, object], hosts: object, hostfile: object, use_gloo: bool | None, use_mpi: bool | None
) -> None:
    given = [name for name, value in elastic.items() if value is not None]
    if given:
        raise NotImplementedError(
            f"{NAME}({', '.join(f'{name}=...' for name in given)}): elastic runs, with hosts that come and go, are not "
            "built yet; leave them out and say num_proc"
        )
    if hosts is not None and hostfile is not None:
        raise ValueError("give hosts or hostfile, not both")
    if use_gloo and use_mpi:
        raise ValueError("give use_gloo or use_mpi, not both")
    if use_gloo:
        _log.warning("%s: use_gloo has no effect here: ranks communicate over MPI, there is no Gloo", NAME)


def _number(num_proc: int, np: int | None) -> int:
    if np is None:
        return num_proc
    warnings.warn("np is deprecated, as in Horovod: use num_proc instead", DeprecationWarning, stacklevel=3)
    return np if num_proc == 1 else num_proc


def _hosts(hosts: str | None, hostfile: str | None) -> tuple[Host, ...]:
    if hosts is not None:
        return parse_hosts(hosts)
    return parse_hostfile(hostfile) if hostfile is not None else ()


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def _results(server: FunctionServer, result: LaunchResult, plan: Plan) -> list[Any]:
    if result.stopped_by:
        signal.raise_signal(result.stopped_by)  # as if it had come now: KeyboardInterrupt, usually
        raise LaunchError(f"{NAME}: {'; '.join(describe_failure(result, plan))}")
    failed = [rank for rank, outcome in server.outcomes.items() if outcome.traceback]
    if failed:
        _raise(_culprit(failed, result), server.outcomes)
    if result.exit_code:
        text = "\n".join(describe_failure(result, plan))
        first = result.first_failure
        raise LaunchError(f"{NAME}: {text}") if first is None else RankFailedError(f"{NAME}: {text}", first.rank)
    silent = [rank for rank in range(plan.job.np) if rank not in server.outcomes]
    if silent:
        ranks = ", ".join(map(str, silent))
        raise RankFailedError(
            f"{NAME}: rank(s) {ranks} ended with exit code 0, but before the function returned", silent[0]
        )
    return [_loaded(rank, server.outcomes[rank].value) for rank in range(plan.job.np)]


def _culprit(failed: Sequence[int], result: LaunchResult) -> int:
    """The rank that failed first: others may have failed of it."""
    first = result.first_failure
    return first.rank if first is not None and first.rank in failed else failed[0]


def _raise(rank: int, outcomes: Mapping[int, Outcome]) -> None:
    outcome = outcomes[rank]
    last = outcome.traceback.rstrip().rpartition("\n")[2]
    message = f"{NAME}: rank {rank} failed: {last}\n\nTraceback of rank {rank}:\n{outcome.traceback}"
    raise RankFailedError(message, rank) from _error(outcome)


def _error(outcome: Outcome) -> BaseException | None:
    """What the rank raised, if this process can make one of it."""
    try:
        error = pickle.loads(outcome.error) if outcome.error else None
    except Exception as why:  # the exception's class may be at fault in any way; its traceback is in the message
        _log.debug("an exception of a rank cannot be unpickled: %r", why)
        return None
    return error if isinstance(error, BaseException) else None


def _loaded(rank: int, value: bytes) -> Any:
    try:
        return pickle.loads(value)
    except Exception as error:
        raise RankFailedError(f"{NAME}: the result of rank {rank} cannot be unpickled here: {error!r}", rank) from error
