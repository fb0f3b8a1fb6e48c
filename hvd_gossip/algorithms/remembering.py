"""What ChocoSGD and RelaySGD share: they remember, from exchange to exchange, what their neighbours have sent.

What two workers make of what they remember must fit together. It does as long as neither misses an exchange of the other's; who
pauses, rests or departs may. So memory holds for one phase only. At a phase's end all live workers either have taken an exact
mean, as for an evaluation, and remember that of each other; or they forget, and begin as at first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.dpsgd import DPSGD
from hvd_gossip.buffers.replica import Chunk
from hvd_gossip.transport.endpoint import Array


class Remembering(DPSGD):
    """D-PSGD's rounds, correction and exact averages for algorithms with a memory.

    Attributes:
        first: whether nothing is remembered. Owner: whichever thread begins or ends a phase.

    Args:
        peers: of whom to remember something as large as the parameters.
    """

    def __init__(self, context: Context, peers: Iterable[int]) -> None:
        super().__init__(context)
        self._remembered = {peer: context.replica.companion() for peer in peers}
        self.first = True
        self._met = False

    def remembered(self, peer: int, chunk: Chunk) -> Array:
        """What is remembered of a peer: an array as long as the chunk and of its type."""
        return self._remembered[peer].chunks[chunk.index]

    def remember(self, mean: Sequence[Array]) -> None:
        with self.context.replica.space.computing():
            for companion in self._remembered.values():
                companion.copy_from(mean)
        self.first = False

    def forget(self) -> None:
        """Engine: what was remembered is worth nothing any more."""
        self.first = True

    async def average(self, name: str) -> int:
        count = await super().average(name)
        self.remember(self.context.replica.flats)
        self._met = True
        return count

    async def resume(self, phase: int | None = None) -> None:
        await super().resume(phase)
        if not self._met:
            self.forget()
        self._met = False

    def state_dict(self) -> dict[str, Any]:
        remembered = {str(peer): companion.state() for peer, companion in self._remembered.items()}
        return {"remembered": remembered, "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        given, mine = state["remembered"], {str(peer) for peer in self._remembered}
        if set(given) != mine:
            raise ValueError(
                f"what a worker remembers of ranks {', '.join(sorted(given))} does not fit rank "
                f"{self.context.endpoint.rank} of this topology, which remembers ranks {', '.join(sorted(mine))}"
            )
        for peer, companion in self._remembered.items():
            companion.load(given[str(peer)], f"values remembered of rank {peer}")
        self.first = bool(state["first"])
