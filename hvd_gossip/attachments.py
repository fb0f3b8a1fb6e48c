"""How ranks agree on what they put under an algorithm, and on the channels of its messages."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hvd_gossip.collectives import Request, Result
from hvd_gossip.engine import Handle
from hvd_gossip.errors import ConfigError
from hvd_gossip.transport.endpoint import ALGORITHM_BASE, ALGORITHM_LIMIT, ALGORITHM_STRIDE

CAPACITY = (ALGORITHM_LIMIT - ALGORITHM_BASE) // ALGORITHM_STRIDE
"""So many attachments a rank can take part in."""


class Attachments:
    """Counts this rank's attachments. Owner: the training thread.

    Ranks belong to different process sets and so attach different numbers of times. An attachment's channels come after all
    that any of its ranks has used: on each rank every attachment has its own, and they are the same on all ranks of one.
    """

    def __init__(self, submit: Callable[[Request], Handle[Result]]) -> None:
        self._submit = submit
        self._counts: dict[int, int] = {}
        self._next = 0

    def agree(self, what: str, ranks: Sequence[int], rank: int, process_set: int) -> int:
        """The first of the channels of a new attachment. A collective of the process set.

        Args:
            what: what this rank attaches, in words that are the same on all ranks.
            ranks: the process set's.
            rank: this one.

        Raises:
            ConfigError: the ranks attach different things, or one has no channels left; on all of them.
        """
        count = self._counts.get(process_set, 0)
        digest = zlib.crc32(what.encode())
        said = np.array([[digest, self._next]], np.int64)
        request = Request(name=f"attach.{count}", kind="allgather", array=said, process_set=process_set)
        everybody: Any = self._submit(request).wait().output
        self._counts[process_set] = count + 1
        different = [other for other, (its, _) in zip(ranks, everybody, strict=True) if its != digest]
        if different:
            raise ConfigError(
                f"rank {rank} attached {what}, but rank(s) {', '.join(map(str, different))} something else; "
                "all ranks must give the same algorithm, topology, settings and parameters"
            )
        return self._channel(int(everybody[:, 1].max()))

    def _channel(self, number: int) -> int:
        if number >= CAPACITY:
            raise ConfigError(f"{number} optimizers were attached already: no channels are left for one more")
        self._next = number + 1
        return ALGORITHM_BASE + number * ALGORITHM_STRIDE
