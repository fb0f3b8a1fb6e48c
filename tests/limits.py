"""What models that begin apart come to where nobody trains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hvd_gossip.algorithms.registry import ALGORITHMS
from hvd_gossip.algorithms.relaysgd import workers_beyond
from hvd_gossip.topology.registry import make_topology


def mean_moves(algorithm: str, n: int) -> bool:
    """Whether the mean of `n` workers moves while they come together: it is the limit only when they are there,
    and without a pause on the way, after which what is relayed begins anew."""
    return algorithm == "relaysgd" and n > 2


def limit_weights(algorithm: str, n: int) -> NDArray[np.float64]:
    """How much each of `n` workers' first model counts in the model that all come to. Shape (n,), sums to 1.

    Equally in most algorithms. A parameter server begins with the first rank's. RelaySGD keeps the sum in its module's text, in
    which a worker counts once for itself, and at first for all messages that it supposes to have had: |S_k| x_i(0) from k.
    """
    weights = np.ones(n)
    if ALGORITHMS[algorithm].central:
        weights[1:] = 0
    if algorithm == "relaysgd":
        tree = make_topology(ALGORITHMS[algorithm].default_topology, n)
        for rank in range(n):
            beyond = [workers_beyond(tree, rank, peer) for peer in tree.in_weights(rank, 0) if peer != rank]
            weights[rank] += sum((n - there - 1) * there for there in beyond) / n
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
