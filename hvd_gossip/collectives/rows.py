"""How the rows of an array (its first dimension) are divided among ranks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

UNEVEN = "splits not provided, but first dimension of tensor is not an even multiple of the number of workers"
ENTRIES = "Number of entries in splits does not equal number of workers"
TOO_MANY = "Sum of splits entries is greater than the first dimension of tensor"
NEGATIVE = "Entries of splits must not be negative"


def even_rows(rows: int, count: int) -> tuple[int, ...]:
    """`rows` divided among `count` ranks; the first `rows` modulo `count` get one more (Horovod's reducescatter)."""
    share, more = divmod(rows, count)
    return (share + 1,) * more + (share,) * (count - more)


def bounds_of(sizes: Sequence[int], index: int) -> tuple[int, int]:
    """Where the part of an index begins and ends, if parts of these sizes follow each other."""
    start = sum(sizes[:index])
    return start, start + sizes[index]


def starts_of(sizes: Sequence[int]) -> list[int]:
    """Where each part begins, and where the last one ends."""
    return [0, *accumulate(sizes)]


def full_splits(splits: tuple[int, ...], rows: int, count: int) -> tuple[int, ...]:
    """An alltoall's splits, those that were left out included. Only for splits that `wrong_splits` finds nothing in."""
    return splits or even_rows(rows, count)


def wrong_splits(splits: Sequence[int], rows: int, count: int) -> str:
    """What is wrong with one rank's splits of `rows` rows among `count` ranks, or "". Rows may be left over."""
    if not splits:
        return f"{UNEVEN}: {rows} rows among {count}" if rows % count else ""
    if len(splits) != count:
        return f"{ENTRIES}: {len(splits)} for {count}"
    if min(splits) < 0:
        return f"{NEGATIVE}: {list(splits)}"
    return f"{TOO_MANY}: {list(splits)} of {rows} rows" if sum(splits) > rows else ""
