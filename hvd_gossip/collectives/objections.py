"""What keeps an operation that everybody has submitted alike from being carried out."""

from __future__ import annotations

from hvd_gossip.collectives.messages import NOT_WITH_JOIN, name_ranks
from hvd_gossip.collectives.negotiation import Negotiation
from hvd_gossip.collectives.request import PROCESS_SET_KINDS, ReduceOp
from hvd_gossip.collectives.rows import wrong_splits

POWER_OF_TWO = "Running Adasum with non-power of 2 ranks is not supported yet"
WITH_JOIN = ("allreduce", "barrier", "join")
"""Kinds for which nobody is missed who has joined; others need their data."""


def is_power_of_two(count: int) -> bool:
    return count > 0 and count & (count - 1) == 0


def objection(negotiation: Negotiation) -> str:
    """Why a complete negotiation fails on every rank, or ""."""
    signature, submissions = negotiation.signature, negotiation.submissions
    kind, name = signature.kind, signature.name
    if kind == "allreduce" and signature.op != ReduceOp.ADASUM:
        return ""
    if negotiation.absent and _needs_absent(negotiation):
        advice = " Specify sparse_as_dense=True if using DistributedOptimizer." if kind == "allgather" else ""
        who = name_ranks(negotiation.absent)
        return NOT_WITH_JOIN.format(kind=kind.capitalize(), who=who[0].upper() + who[1:], name=name) + advice
    if kind == "broadcast" and signature.root_rank not in submissions:
        return f"broadcast {name!r}: root rank {signature.root_rank} does not take part"
    if kind == "alltoall":
        return _wrong_splits(negotiation)
    if kind == "allreduce":
        count = len(submissions) + (0 if signature.live_only else len(negotiation.absent))
        if not is_power_of_two(count):
            return f"allreduce {name!r}: {POWER_OF_TWO}: {count} take part"
    return ""


def _needs_absent(negotiation: Negotiation) -> bool:
    signature = negotiation.signature
    return signature.kind in PROCESS_SET_KINDS or not (signature.live_only or signature.kind in WITH_JOIN)


def _wrong_splits(negotiation: Negotiation) -> str:
    submissions, count = negotiation.submissions, len(negotiation.submissions)
    for rank in sorted(submissions):
        text = wrong_splits(submissions[rank].splits, submissions[rank].length, count)
        if text:
            return f"alltoall {negotiation.signature.name!r}: rank {rank}: {text}."
    return ""
