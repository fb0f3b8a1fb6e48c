"""Texts of errors and warnings, in the spirit of Horovod's documented ones: which tensor, which ranks, which values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hvd_gossip.collectives.request import BY_ROWS, PROCESS_SET_KINDS, ReduceOp, Signature

DUPLICATE = (
    "Requested to {kind} a tensor with the same name as another tensor that is currently being processed: {name!r}. "
    "If you want to request another tensor, use a different tensor name."
)
REMOVED = "Process set {} has been removed."
NOT_WITH_JOIN = "{kind} is not supported with Join at this time. {who} joined before {name!r}."
STALLED = (
    "One or more tensors were submitted to be reduced, gathered or broadcasted by subset of ranks and are waiting for "
    "remainder of ranks for more than {:g} seconds. Either these ranks are slow or stuck, or ranks submit different tensors, "
    "and then this never ends. Stalled ops:"
)
"""Begins with Horovod's words: users' scripts that watch logs look for them."""
SHUT_DOWN = "{kind} {name!r} cannot be done: {who}. It was submitted by {ranks}."


def name_ranks(ranks: Iterable[int]) -> str:
    """ "rank 3", or "ranks 0-4, 6"."""
    numbers = sorted(set(ranks))
    if not numbers:
        return "no rank"
    return f"rank{'s' * (len(numbers) > 1)} {_numbers(numbers)}"


def _numbers(ranks: Iterable[int]) -> str:
    """ "3", or "0-4, 6"."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and runs[-1][1] == rank - 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _factors(signature: Signature) -> str:
    return f"factors ({signature.prescale:g}, {signature.postscale:g})"


_ASPECTS: tuple[tuple[str, Callable[[Signature], Any], Callable[[Signature], str]], ...] = (
    ("operations", lambda s: s.kind, lambda s: s.kind),
    ("process sets", lambda s: s.kind in PROCESS_SET_KINDS and s.shape, lambda s: f"{list(s.shape)}"),
    ("data types", lambda s: s.dtype, lambda s: s.dtype),
    ("{kind} tensor ranks", lambda s: len(s.shape), lambda s: f"{len(s.shape) + (s.kind in BY_ROWS)} dimensions"),
    ("{kind} tensor shapes", lambda s: s.shape, lambda s: f"shape {_shape(s)}"),
    ("reduction operations", lambda s: s.op, lambda s: ReduceOp(s.op).name.capitalize()),
    ("prescale and/or postscale factors", lambda s: (s.prescale, s.postscale), _factors),
    ("{kind} root ranks", lambda s: s.root_rank, lambda s: f"root rank {s.root_rank}"),
    ("{kind} CPU/GPU device selection", lambda s: s.device, lambda s: f"device {s.device}"),
    ("live_only arguments", lambda s: s.live_only, lambda s: f"live_only={s.live_only}"),
    ("groups", lambda s: (s.group, s.group_size), lambda s: f"group {s.group!r} of {s.group_size}"),
)


def _shape(signature: Signature) -> str:
    sizes = [str(size) for size in signature.shape]
    if signature.kind in BY_ROWS:
        sizes.insert(0, "*")
    return f"[{', '.join(sizes)}]"


def describe_mismatch(signatures: Mapping[int, Signature]) -> str:
    """What the ranks' signatures differ in, or "" if they are alike. Names every value and who submitted it."""
    first = next(iter(signatures.values()))
    ranks = sorted(signatures)
    for title, key, show in _ASPECTS:
        values: dict[Any, list[int]] = {}
        for rank in ranks:
            values.setdefault(key(signatures[rank]), []).append(rank)
        if len(values) > 1:
            *parts, last = [f"{name_ranks(some)} submitted {show(signatures[some[0]])}" for some in values.values()]
            return f"Mismatched {title.format(kind=first.kind)} for {first.name!r}: {', '.join(parts)}, but {last}."
    return ""


def describe_stall(tensors: Iterable[tuple[Signature, float, list[int], list[int]]], limit: float) -> str:
    """The warning about tensors that only some ranks have submitted.

    Args:
        tensors: (signature, age in seconds, ready ranks, missing ranks) of each.
        limit: the age in seconds from which on they are reported.
    """
    lines = [STALLED.format(limit)]
    for signature, age, ready, missing in tensors:
        lack = f"missing ranks: {_numbers(missing)}" if missing else f"missing: the rest of group {signature.group!r}"
        lines.append(f"{signature.kind} {signature.name!r}: {age:.0f} s [ready ranks: {_numbers(ready)}] [{lack}]")
    return "\n  ".join(lines)
