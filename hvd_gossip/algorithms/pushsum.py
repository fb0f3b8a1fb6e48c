"""What the push-sum algorithms share: a weight a chunk, which an exact average and a checkpoint must heed."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvd_gossip.algorithms.base import Context
from hvd_gossip.algorithms.means import mean_of_finite
from hvd_gossip.buffers.arrays import scale
from hvd_gossip.buffers.replica import Replica


async def weighted_average(context: Context, name: str, weights: np.ndarray) -> int:
    """Engine, while paused, held and previewed: replaces the replica's z by (sum w z) / (sum w), chunk by chunk.

    Args:
        context: the algorithm's.
        name: the exact average's.
        weights: of each chunk, float64; overwritten.

    Returns:
        The number of ranks averaged over.
    """
    _scale_all(context.replica, weights)
    replica = context.replica
    count = await mean_of_finite(context, name, replica.flats, [chunk.x for chunk in replica.chunks], weights)
    _scale_all(replica, 1.0 / weights)
    return count


def restored_weights(state: dict[str, Any], chunks: int) -> np.ndarray:
    """The weights of a `state_dict()`.

    Raises:
        ValueError: they are not as many as there are chunks.
    """
    if len(state["weights"]) != chunks:
        raise ValueError(f"push-sum weights of {len(state['weights'])} chunks do not fit {chunks} chunks")
    return np.array(state["weights"], np.float64)


def _scale_all(replica: Replica, factors: np.ndarray) -> None:
    for chunk, factor in zip(replica.chunks, factors, strict=True):
        if factor != 1.0:
            scale(chunk.x, float(factor))
