"""A rank of `hvd_gossip.run`: fetches the function from the caller, calls it, sends back what it returned or raised."""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

import cloudpickle  # type: ignore[import-untyped]

from hvd_gossip.errors import LaunchError
from hvd_gossip.launch.agent.channel import connect
from hvd_gossip.launch.agent.options import RANK_VARIABLES

VARIABLE = "_HVD_GOSSIP_FUNCTION"
"""Environment variable that says where the caller is: JSON of addresses and token."""
LENGTH = struct.Struct(">Q")
"""In front of every frame: its length in bytes."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        value: what the function returned, pickled; empty if it raised.
        traceback: of what it raised, as text; empty if it returned.
        error: what it raised, pickled; empty if that cannot be.
    """

    value: bytes = b""
    traceback: str = ""
    error: bytes = b""


def main() -> None:
    """Raises what the function raises, once that is told."""
    invitation = json.loads(os.environ.pop(VARIABLE))
    with _connected(invitation) as connection:
        call = _receive(connection)
        try:
            value = _call(call)
        except BaseException as error:
            _send(connection, _raised(error))
            raise
        _send(connection, Outcome(value=value))


def _connected(invitation: Mapping[str, object]) -> socket.socket:
    rank = next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)
    addresses = [(host, port) for host, port in invitation["addresses"]]  # type: ignore[attr-defined]  # JSON
    connection = connect(addresses, {"token": invitation["token"], "rank": rank})
    if connection is None:
        where = ", ".join(f"{host}:{port}" for host, port in addresses)
        raise LaunchError(
            f"rank {rank} on {socket.gethostname()} cannot reach the caller of hvd_gossip.run at {where}: is it cut off by "
            "a firewall? network_interface= chooses the address"
        )
    return connection


def _call(call: bytes) -> bytes:
    path, function = pickle.loads(call)
    sys.path += [entry for entry in path if entry not in sys.path]  # modules of the caller can be imported here
    func, args, kwargs = pickle.loads(function)
    value: bytes = cloudpickle.dumps(func(*args, **kwargs))
    return value


def _raised(error: BaseException) -> Outcome:
    begin = error.__traceback__
    while begin is not None and begin.tb_frame.f_code.co_filename == __file__:
        begin = begin.tb_next  # to the user's own frames
    text = "".join(traceback.format_exception(type(error), error, begin))
    try:
        pickled = cloudpickle.dumps(error)
    except Exception as why:  # an exception may hold anything, such as an open file; then its text has to do
        return Outcome(traceback=f"{text}(The exception itself cannot be pickled: {why!r})\n")
    return Outcome(traceback=text, error=pickled)


def _receive(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        (length,) = LENGTH.unpack(stream.read(LENGTH.size))
        return stream.read(length)


def _send(connection: socket.socket, outcome: Outcome) -> None:
    data = pickle.dumps(outcome)
    connection.sendall(LENGTH.pack(len(data)))
    connection.sendall(data)


if __name__ == "__main__":
    from hvd_gossip.launch import function_rank  # pickled objects name this module, not __main__

    function_rank.main()
