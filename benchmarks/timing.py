"""Times of operations that several processes of one machine take part in; their monotonic clocks are one clock."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.spread import Spread


def spans(ranks: Sequence[Sequence[Sequence[float]]]) -> Spread:
    """Seconds of each repetition: from when the last rank began to when the last one was done.

    Args:
        ranks: for each rank the starts and the ends of all repetitions.
    """
    starts = zip(*(rank[0] for rank in ranks), strict=True)
    ends = zip(*(rank[1] for rank in ranks), strict=True)
    return Spread.of(max(end) - max(start) for start, end in zip(starts, ends, strict=True))
