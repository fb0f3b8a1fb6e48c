"""Exact means that poison nobody: a chunk that is not finite on one worker is left out, and counted, on all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hvd_gossip.buffers.arrays import is_finite, scale
from hvd_gossip.transport.endpoint import Array

if TYPE_CHECKING:
    from hvd_gossip.algorithms.base import Context


async def mean_of_finite(
    context: Context, name: str, flats: Sequence[Array], chunks: Sequence[Array], weights: np.ndarray | None = None
) -> int:
    """Engine: replaces arrays by their exact mean over the live ranks, chunk by chunk over those on which it is finite.

    A rank whose chunk is left out gets the mean of the others; where all are left out, NaN.

    Args:
        flats: as on every other rank; overwritten.
        chunks: views that cover the flats.
        weights: one a chunk, float64: replaced by their means over the same ranks as the chunk's; 1 where there are none.

    Returns:
        The number of live ranks.
    """
    taken = np.ones(len(chunks))
    for index, chunk in enumerate(chunks):
        if not is_finite(chunk):
            chunk.fill(0)
            taken[index] = 0.0
            context.counters.refuse(context.endpoint.rank)
    if weights is not None:
        weights *= taken
    count = await context.exact_average(name, [*flats, taken, *([] if weights is None else [weights])])
    for chunk, share in zip(chunks, taken, strict=True):
        if share == 0.0:
            chunk.fill(math.nan)
        elif share != 1.0:
            scale(chunk, 1.0 / float(share))
    if weights is not None:
        weights[:] = np.where(taken > 0.0, weights / np.maximum(taken, np.finfo(np.float64).tiny), 1.0)
    return count
