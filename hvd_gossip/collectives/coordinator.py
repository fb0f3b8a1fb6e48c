"""The coordinator's side of negotiation: who has submitted what, and what is therefore answered, in one order.

A state machine without communication: `submit`, `depart` and `report` tell it what happened, `take` gives the entries to
send to every rank (the coordinator's own included). It lives on the lowest live rank.

- A name is complete when every rank that takes part has submitted it. What the ranks must agree on is compared then.
- Small operations are computed here (eager.py). Larger allreduces may be held back until the transfer under way is done,
  but no longer than the cycle time, so that more of them fuse.
- An operation that a departed rank has not submitted fails, unless all submitted it as `live_only`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from hvd_gossip.collectives.cache import Key, ResponseCache
from hvd_gossip.collectives.eager import compute
from hvd_gossip.collectives.fusion import fuse
from hvd_gossip.collectives.messages import SHUT_DOWN, describe_mismatch, name_ranks
from hvd_gossip.collectives.request import Signature
from hvd_gossip.collectives.wire import Abort, Answer, Define, Departed, Entry, Evict, Execute, Failure, Submission


@dataclass
class State:
    """What every rank knows of the coordinator's stream of entries; whoever takes the role over goes on from it.

    Attributes:
        cache: ids of signatures.
        process_sets: ranks by the process set's number; 0 is all.
        gone: departed ranks, and whether they died.
        next_sequence: number of the next transfer.
    """

    cache: ResponseCache
    process_sets: dict[int, tuple[int, ...]]
    gone: dict[int, bool]
    next_sequence: int = 0

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


class Negotiation:
    """One name under negotiation.

    Attributes:
        signature: of the first rank that submitted it; `signatures` and `submissions` are by rank.
        alike: whether all signatures are equal.
        complete: whether all have submitted it, and it only waits for the rest of its group.
        since: when it was first submitted, seconds; `reported` is when it was last reported as stalled, or `since`.
    """

    __slots__ = ("alike", "complete", "reported", "signature", "signatures", "since", "submissions")

    def __init__(self, signature: Signature, now: float) -> None:
        self.signature = signature
        self.signatures: dict[int, Signature] = {}
        self.submissions: dict[int, Submission] = {}
        self.alike = True
        self.complete = False
        self.since = self.reported = now

    @property
    def live_only(self) -> bool:
        """Whether departed ranks may be missing."""
        return self.signature.live_only if self.alike else all(one.live_only for one in self.signatures.values())

    @property
    def groups_differ(self) -> bool:
        """Whether the ranks disagree even on the group, so that waiting for the rest of it makes no sense."""
        return len({(one.group, one.group_size) for one in self.signatures.values()}) > 1

    def add(self, rank: int, signature: Signature, submission: Submission) -> None:
        """A rank has submitted it."""
        self.signatures[rank] = signature
        self.submissions[rank] = submission
        self.alike = self.alike and (signature is self.signature or signature == self.signature)

    def withdraw(self, rank: int) -> None:
        """Forgets what a rank submitted."""
        self.complete = False
        if self.submissions.pop(rank, None) is not None:
            del self.signatures[rank]
            self.signature = next(iter(self.signatures.values()), self.signature)
            self.alike = all(signature == self.signature for signature in self.signatures.values())


class Coordinator:
    """Negotiates by name.

    Args:
        state: as this rank knows it. The cache is shared; the rest is copied.
        fusion_threshold: bytes that one transfer may hold.
        cycle_time: seconds for which a complete allreduce may be held back.
        clock: seconds that never go back.
    """

    def __init__(self, state: State, fusion_threshold: int, cycle_time: float, clock: Callable[[], float]) -> None:
        # What is decided here is known to this rank's own side, as to all others, only when it is taken and followed.
        self._state = replace(state, gone=dict(state.gone))
        self._fusion_threshold = fusion_threshold
        self._cycle_time = cycle_time
        self._clock = clock
        self._table: dict[Key, Negotiation] = {}
        self._groups: dict[Key, set[Key]] = {}
        self._ready: dict[Key, Negotiation] = {}
        self._ready_bytes = 0
        self._due = 0.0
        self._entries: list[Entry] = []
        self._stale: dict[Key, tuple[set[int], str]] = {}

    @property
    def negotiations(self) -> list[Negotiation]:
        """The names that wait for ranks."""
        return list(self._table.values())

    @property
    def due(self) -> float | None:
        """Until when complete operations are held back, or None if there are none."""
        return self._due if self._ready else None

    def missing(self, negotiation: Negotiation) -> list[int]:
        """The ranks that have yet to submit a name."""
        live = self._state.live(negotiation.signature.process_set)
        return [rank for rank in live if rank not in negotiation.submissions]

    def submit(self, rank: int, submissions: Iterable[Submission]) -> None:
        """A rank's requests have come. What a departed rank had under way is ignored."""
        if rank in self._state.gone:
            return
        for submission in submissions:
            what = submission.id
            signature = self._state.cache.get(what) if isinstance(what, int) else what
            # A void id is ignored: its sender learns that it is void and submits the request in full.
            if signature is not None:
                self._submit(rank, signature, submission)

    def depart(self, rank: int, died: bool = False) -> None:
        """A rank has shut down or died: what it submitted and was not answered is void."""
        if rank in self._state.gone:
            return
        self._execute()
        self._state.gone[rank] = died
        self._entries.append(Departed(rank, died))
        for negotiation in self.negotiations:
            negotiation.withdraw(rank)
            if negotiation.submissions:
                self._settle(negotiation)
            else:
                self._forget(negotiation)

    def report(self, rank: int, sequence: int, text: str) -> None:
        """A transfer failed on a rank."""
        self._entries.append(Abort(sequence, rank, text))

    def give_up(self, negotiation: Negotiation, text: str) -> None:
        """Fails a name on the ranks that submitted it and, when they do, on the others."""
        missing = self.missing(negotiation)
        if missing:
            self._stale[negotiation.signature.key] = set(missing), text
        self._fail(negotiation, text, timed_out=True)

    def take(self, idle: bool) -> list[Entry]:
        """What to send to every rank now, in this order.

        Args:
            idle: whether no transfer is under way here, so that holding back would gain nothing.
        """
        if self._ready and (idle or self._ready_bytes >= self._fusion_threshold or self._clock() >= self._due):
            self._execute()
        entries, self._entries = self._entries, []
        if entries and len(self._state.cache) > self._state.cache.capacity:
            self._evict(entries)
        return entries

    def _evict(self, entries: list[Entry]) -> None:
        # A name under negotiation keeps its id: a rank whose request's id becomes void knows that it was not received.
        numbers = self._state.cache.surplus(self._table.keys() | self._ready.keys())
        if numbers:
            entries.append(Evict(numbers))

    def _submit(self, rank: int, signature: Signature, submission: Submission) -> None:
        key = signature.key
        if key in self._stale and self._is_stale(rank, key):
            return
        negotiation = self._table.get(key)
        if negotiation is None:
            negotiation = self._table[key] = Negotiation(signature, self._clock())
        negotiation.add(rank, signature, submission)
        self._settle(negotiation)

    def _is_stale(self, rank: int, key: Key) -> bool:
        """Whether the request belongs to an operation that the others gave up; then it fails too."""
        missing, text = self._stale[key]
        if rank not in missing:
            return False
        missing.discard(rank)
        if not missing:
            del self._stale[key]
        self._entries.append(Failure(*key, (rank,), True, text))
        return True

    def _settle(self, negotiation: Negotiation) -> None:
        """Answers a name if everybody who takes part has submitted it."""
        signature, state = negotiation.signature, self._state
        if state.gone and not negotiation.live_only:
            who = state.describe_gone(signature.process_set)
            if who:
                ranks = name_ranks(negotiation.submissions)
                self._fail(
                    negotiation, SHUT_DOWN.format(kind=signature.kind, name=signature.name, who=who, ranks=ranks)
                )
                return
        if len(negotiation.submissions) < len(state.live(signature.process_set)):
            return
        negotiation.complete = True
        if signature.group and not negotiation.groups_differ:
            self._settle_group(negotiation)
        else:
            self._conclude([negotiation])

    def _settle_group(self, negotiation: Negotiation) -> None:
        signature = negotiation.signature
        group = (signature.process_set, signature.group)
        names = self._groups.setdefault(group, set())
        names.add(signature.key)
        if len(names) >= signature.group_size and all(self._table[key].complete for key in names):
            del self._groups[group]
            self._conclude([self._table[key] for key in sorted(names)])

    def _conclude(self, negotiations: list[Negotiation]) -> None:
        """All that belongs together is complete: answers it, or fails all of it."""
        for negotiation in negotiations:
            if not negotiation.alike:
                text = describe_mismatch(negotiation.signatures)
                for one in negotiations:
                    self._fail(one, text)
                return
        for negotiation in negotiations:
            try:
                self._answer(negotiation)
            except Exception as error:
                # Whatever a request holds, it must not take the coordinator, and so all other operations, down.
                self._fail(negotiation, f"{negotiation.signature.kind} {negotiation.signature.name!r}: {error!r}")

    def _answer(self, negotiation: Negotiation) -> None:
        """Everybody submitted the same: the result if it is small, else a place among the transfers."""
        signature = negotiation.signature
        if signature.kind == "broadcast" and signature.root_rank not in negotiation.submissions:
            self._fail(negotiation, f"broadcast {signature.name!r}: root rank {signature.root_rank} does not take part")
            return
        outcome = compute(signature, negotiation.submissions)
        self._forget(negotiation)
        if outcome is not None:
            self._entries.append(Answer(self._define(signature), *outcome))
            return
        if not self._ready:
            self._due = self._clock() + self._cycle_time
        self._ready[signature.key] = negotiation
        # Only allreduces fuse: anything else makes all that is ready go out at once.
        self._ready_bytes += signature.nbytes if signature.kind == "allreduce" else self._fusion_threshold

    def _execute(self) -> None:
        ready, self._ready, self._ready_bytes = self._ready, {}, 0
        for group in fuse([one.signature for one in ready.values()], self._fusion_threshold):
            ids = tuple(self._define(signature) for signature in group)
            sizes = _sizes(group[0], ready[group[0].key].submissions)
            self._entries.append(Execute(self._state.next_sequence, ids, sizes))
            self._state.next_sequence += 1

    def _define(self, signature: Signature) -> int:
        """The id of a signature, announced if it is new."""
        cache = self._state.cache
        number = cache.id_of(signature.key)
        if number is None or cache.get(number) != signature:
            number = cache.next_id
            cache.define(number, signature)
            self._entries.append(Define(number, signature))
        cache.touch(number)
        return number

    def _fail(self, negotiation: Negotiation, text: str, timed_out: bool = False) -> None:
        self._forget(negotiation)
        ranks = tuple(sorted(negotiation.submissions))
        self._entries.append(Failure(*negotiation.signature.key, ranks, timed_out, text))

    def _forget(self, negotiation: Negotiation) -> None:
        signature = negotiation.signature
        self._table.pop(signature.key, None)
        names = self._groups.get((signature.process_set, signature.group)) if signature.group else None
        if names is not None:
            names.discard(signature.key)


def _sizes(signature: Signature, submissions: Mapping[int, Submission]) -> tuple[int, ...]:
    """For allgather, the first dimensions in the order of the ranks."""
    if signature.kind != "allgather":
        return ()
    return tuple(submissions[rank].length for rank in sorted(submissions))
