"""What the launcher tells its agents, and how both name things."""

from __future__ import annotations

import json
from dataclasses import dataclass

VARIABLE = "_HVD_GOSSIP_AGENT"
"""Environment variable that carries the options; the rank's command does not see it."""
AGENT_PID = "_HVD_GOSSIP_AGENT_PID"
"""Environment variable of a rank's command: its parent, if that is an agent, sees how it ends and tells the launcher."""

RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
"""Environment variables in which MPI launchers say a process's rank."""


@dataclass(frozen=True)
class Options:
    """What the launcher tells its agents.

    Attributes:
        addresses: (host, port) pairs where the launcher may be reached, the likeliest first.
        token: proves to the launcher that an agent is one of its own.
        orphan_grace: seconds from SIGTERM to SIGKILL once the launcher is gone.
        terminals: for stdout and stderr, whether the launcher's is a terminal: the command's is one exactly then.
        terminal_size: its (lines, columns).
        folder: the output goes to FOLDER/rank.N/stdout and stderr as well; empty: it does not.
        rank_digits: N has at least so many digits.
        timestamps: each line of output begins with the time.
    """

    addresses: tuple[tuple[str, int], ...]
    token: str
    orphan_grace: float = 5.0
    terminals: tuple[bool, bool] = (False, False)
    terminal_size: tuple[int, int] = (24, 80)
    folder: str = ""
    rank_digits: int = 1
    timestamps: bool = False

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> Options:
        read = json.loads(text)
        addresses = tuple((host, port) for host, port in read.pop("addresses"))
        stdout, stderr = read.pop("terminals")
        lines, columns = read.pop("terminal_size")
        return cls(addresses=addresses, terminals=(stdout, stderr), terminal_size=(lines, columns), **read)
