"""What every rank knows of the coordinator's stream of entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from hvd_gossip.collectives.cache import ResponseCache
from hvd_gossip.collectives.entries import Answer, ChangeSet, Entry
from hvd_gossip.collectives.messages import name_ranks


@cache
def everybody(size: int) -> tuple[int, ...]:
    """All ranks; one tuple for all that are simulated in a process."""
    return tuple(range(size))


@dataclass
class State:
    """Changed by the entries, in their order, and by nothing else; whoever takes the coordinator's role over goes on from it.

    Attributes:
        cache: ids of signatures.
        process_sets: ranks by the process set's number; 0 is all.
        gone: departed ranks, and whether they died.
        next_sequence: number of the next transfer.
        next_set: number of the next process set. None is used twice.
    """

    cache: ResponseCache
    process_sets: dict[int, tuple[int, ...]]
    gone: dict[int, bool]
    next_sequence: int = 0
    next_set: int = 1

    def copy(self) -> State:
        """The coordinator's own, in which things happen before they are followed. The cache is shared."""
        return replace(self, process_sets=dict(self.process_sets), gone=dict(self.gone))

    def live(self, process_set: int = 0) -> tuple[int, ...]:
        """The ranks of a process set that have not departed."""
        ranks = self.process_sets[process_set]
        return tuple(rank for rank in ranks if rank not in self.gone) if self.gone else ranks

    def describe_gone(self, process_set: int = 0) -> str:
        """Who of a process set has departed: "rank 2 has shut down", or "" if nobody has."""
        texts = []
        for died, verb in ((False, "shut down"), (True, "failed")):
            left = [rank for rank in self.process_sets[process_set] if self.gone.get(rank) is died]
            if left:
                texts.append(f"{name_ranks(left)} {'has' if len(left) == 1 else 'have'} {verb}")
        return " and ".join(texts)

    def for_rank(self, entries: Sequence[Entry], rank: int) -> list[Entry]:
        """The entries as a rank needs them: without results of process sets that it is not in."""
        return [self._without_foreign(entry, rank) if isinstance(entry, Answer) else entry for entry in entries]

    def _without_foreign(self, answer: Answer, rank: int) -> Answer:
        signature = self.cache.get(answer.id)
        foreign = signature is not None and rank not in self.process_sets.get(signature.process_set, ())
        return answer._replace(payload=b"") if foreign else answer

    def new_set(self, ranks: tuple[int, ...]) -> ChangeSet:
        """The entry that registers a process set, or says why it can't be."""
        everybody = self.process_sets[0]
        if not ranks or tuple(sorted(set(ranks))) != ranks or not set(ranks) <= set(everybody):
            text = f"A process set has ranks of 0 to {len(everybody) - 1}, each once, not {list(ranks)}"
        elif ranks in self.process_sets.values():
            text = f"Attempted to add a duplicate process set: {list(ranks)}"
        else:
            text = ""
        return ChangeSet(self.next_set, ranks, text)

    def without(self, process_set: int) -> ChangeSet:
        """The entry that removes a process set, or says why it can't be."""
        return ChangeSet(process_set, (), "" if process_set else "The global process set cannot be removed")

    def change(self, entry: ChangeSet) -> None:
        """Registers or removes a process set."""
        if entry.text:
            return
        if entry.ranks:
            self.process_sets[entry.process_set] = entry.ranks
            self.next_set = entry.process_set + 1
        else:
            self.process_sets.pop(entry.process_set, None)
