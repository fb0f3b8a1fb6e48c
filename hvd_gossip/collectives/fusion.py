"""Which operations that are ready at once are executed as one transfer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hvd_gossip.collectives.cache import Key
from hvd_gossip.collectives.request import Signature


def _compatible(signature: Signature) -> tuple[Any, ...] | None:
    """Operations of equal value can be fused; None can't."""
    if signature.kind != "allreduce":
        return None
    s = signature
    return s.dtype, s.op, s.prescale, s.postscale, s.process_set, s.live_only, s.device


def fuse(
    signatures: Iterable[Signature], threshold: int, absent: Mapping[Key, tuple[int, ...]] | None = None
) -> list[list[Signature]]:
    """Groups of operations, in the order of their first members; each at most `threshold` bytes, or a single one.

    An operation joins the newest group that it is compatible with, even if others came in between, so that gradients of
    two types that become ready in turn still make two transfers (Horovod's look-ahead for mixed precision).

    Args:
        absent: the ranks that do not take part since they have joined, if there are any: alike in a group.
    """
    groups: list[list[Signature]] = []
    open_groups: dict[tuple[Any, ...], tuple[list[Signature], int]] = {}
    for signature in signatures:
        key, nbytes = _compatible(signature), signature.nbytes
        if absent and key is not None:
            key = *key, absent.get(signature.key, ())
        group, total = open_groups.get(key, ([], 0)) if key is not None else ([], 0)
        if not group or total + nbytes > threshold:
            group, total = [], 0
            groups.append(group)
        group.append(signature)
        if key is not None:
            open_groups[key] = group, total + nbytes
    return groups
