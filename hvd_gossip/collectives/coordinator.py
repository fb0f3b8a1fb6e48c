"""The coordinator's side of negotiation: who has submitted what, and what is therefore answered, in one order.

A state machine without communication: `submit`, `depart` and `report` tell it what happened, `take` gives the entries to
send to every rank (the coordinator's own included). It lives on the lowest live rank.

- A name is complete when every rank that takes part has submitted it. What the ranks must agree on is compared then.
- Small operations are computed here (eager.py). Larger allreduces may be held back until the transfer under way is done,
  but no longer than the cycle time, so that more of them fuse.
- An operation that a departed rank has not submitted fails, unless all submitted it as `live_only`.
- A rank that waits in a join submits nothing, and nobody waits for it: it counts as zeros in allreduces, and is as if
  departed for `live_only` operations. A join of the global process set is one of all sets.
- Process sets are registered and removed like any operation; what they change is an entry, and so in one order for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hvd_gossip.collectives.cache import Key
from hvd_gossip.collectives.eager import compute
from hvd_gossip.collectives.entries import (
    Abort,
    Answer,
    Define,
    Departed,
    Entry,
    Evict,
    Execute,
    Failure,
)
from hvd_gossip.collectives.fusion import fuse
from hvd_gossip.collectives.messages import REMOVED, SHUT_DOWN, describe_mismatch, name_ranks
from hvd_gossip.collectives.negotiation import Negotiation
from hvd_gossip.collectives.objections import objection
from hvd_gossip.collectives.request import PROCESS_SET_KINDS, Signature
from hvd_gossip.collectives.state import State
from hvd_gossip.collectives.tracing import Tracer
from hvd_gossip.collectives.wire import Submission


class Coordinator:
    """Negotiates by name.

    Args:
        state: as this rank knows it. The cache is shared; the rest is copied.
        fusion_threshold: bytes that one transfer may hold.
        cycle_time: seconds for which a complete allreduce may be held back.
        clock: seconds that never go back.
        tracer: is told of negotiations.
    """

    def __init__(
        self,
        state: State,
        fusion_threshold: int,
        cycle_time: float,
        clock: Callable[[], float],
        tracer: Tracer | None = None,
    ) -> None:
        # What is decided here is known to this rank's own side, as to all others, only when it is taken and followed.
        self._state = state.copy()
        self._fusion_threshold = fusion_threshold
        self._cycle_time = cycle_time
        self._clock = clock
        self._tracer = tracer
        self._table: dict[Key, Negotiation] = {}
        self._groups: dict[Key, set[Key]] = {}
        self._joins: set[Key] = set()
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
        process_set = negotiation.signature.process_set
        joined = self._joined(process_set)
        live = self._state.live(process_set)
        return [rank for rank in live if rank not in negotiation.submissions and rank not in joined]

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
        # What only waits for joined ranks ends before their join does.
        for negotiation in sorted(self.negotiations, key=lambda one: one.signature.kind == "join"):
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
            if signature.process_set not in self._state.process_sets:
                self._entries.append(Failure(*key, (rank,), False, REMOVED.format(signature.process_set)))
                return
            negotiation = self._table[key] = Negotiation(signature, self._clock())
            if self._tracer is not None:
                self._tracer.began(signature, negotiation.since)
        negotiation.add(rank, signature, submission)
        if self._tracer is not None:
            self._tracer.ready(signature, rank)
        if signature.kind == "join":
            self._joins.add(key)
            self._settle_without(rank, signature.process_set)
        self._settle(negotiation)

    def _settle_without(self, rank: int, process_set: int) -> None:
        """A rank has joined: nobody waits any more for what it has not submitted."""
        for negotiation in self.negotiations:
            signature = negotiation.signature
            waits = signature.kind != "join" and process_set in (0, signature.process_set)
            if waits and rank not in negotiation.submissions and self._table.get(signature.key) is negotiation:
                self._settle(negotiation)

    def _joined(self, process_set: int) -> set[int]:
        """The ranks that wait in a join of a process set, or of the global one."""
        joins = (key for key in self._joins if key[0] in (0, process_set))
        return {rank for key in joins for rank in self._table[key].submissions}

    def _waits_for_joined(self, negotiation: Negotiation, live: tuple[int, ...]) -> bool:
        """Whether only ranks that have joined are missing, who will not come."""
        absent = tuple(rank for rank in live if rank not in negotiation.submissions)
        if not self._joined(negotiation.signature.process_set).issuperset(absent):
            return False
        negotiation.absent = absent
        for key in self._joins:  # they have no reason to complain: the others are at work
            self._table[key].since = self._table[key].reported = self._clock()
        return True

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
        live = state.live(signature.process_set)
        negotiation.absent = ()
        if len(negotiation.submissions) < len(live) and not (self._joins and self._waits_for_joined(negotiation, live)):
            return
        negotiation.complete = True
        if not negotiation.alike and negotiation.groups_differ:
            self._conclude([negotiation, *self._rest_of_groups(negotiation)])
        elif signature.group:
            self._settle_group(negotiation)
        else:
            self._conclude([negotiation])

    def _rest_of_groups(self, negotiation: Negotiation) -> list[Negotiation]:
        """What else has been submitted of the groups that the ranks disagree on: it would never be complete."""
        groups = {(one.process_set, one.group) for one in negotiation.signatures.values() if one.group}
        return [
            other
            for other in self.negotiations
            if other is not negotiation and (other.signature.process_set, other.signature.group) in groups
        ]

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
            text = objection(negotiation) if negotiation.alike else describe_mismatch(negotiation.signatures)
            if text:
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
        if signature.kind in PROCESS_SET_KINDS:
            self._change_set(negotiation)
            return
        outcome = compute(signature, negotiation.submissions, negotiation.absent)
        self._forget(negotiation)
        if outcome is not None:
            self._entries.append(Answer(self._define(signature), *outcome, negotiation.absent))
            return
        if not self._ready:
            self._due = self._clock() + self._cycle_time
        self._ready[signature.key] = negotiation
        # Only allreduces fuse: anything else makes all that is ready go out at once.
        self._ready_bytes += signature.nbytes if signature.kind == "allreduce" else self._fusion_threshold

    def _execute(self) -> None:
        ready, self._ready, self._ready_bytes = self._ready, {}, 0
        absent = {key: one.absent for key, one in ready.items() if one.absent}
        for group in fuse([one.signature for one in ready.values()], self._fusion_threshold, absent):
            ids = tuple(self._define(signature) for signature in group)
            sizes = _sizes(group[0], ready[group[0].key].submissions)
            self._entries.append(Execute(self._state.next_sequence, ids, sizes, absent.get(group[0].key, ())))
            self._state.next_sequence += 1

    def _change_set(self, negotiation: Negotiation) -> None:
        """Everybody wants the same process set registered, or removed."""
        signature = negotiation.signature
        self._forget(negotiation)
        if signature.kind == "add_process_set":
            entry = self._state.new_set(signature.shape)
        else:
            entry = self._state.without(signature.shape[0])
            self._execute()
            for one in self.negotiations:
                if one.signature.process_set == entry.process_set and not entry.text:
                    self._fail(one, REMOVED.format(entry.process_set))
        self._entries.append(entry)
        self._state.change(entry)

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
        if self._table.pop(signature.key, None) is not None and self._tracer is not None:
            self._tracer.negotiated(signature, negotiation.since)
        if self._joins:
            self._joins.discard(signature.key)
        names = self._groups.get((signature.process_set, signature.group)) if signature.group else None
        if names is not None:
            names.discard(signature.key)


def _sizes(signature: Signature, submissions: Mapping[int, Submission]) -> tuple[int, ...]:
    """For allgather, the first dimensions in the order of the ranks."""
    if signature.kind != "allgather":
        return ()
    return tuple(submissions[rank].length for rank in sorted(submissions))
