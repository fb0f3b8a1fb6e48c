"""How fast random pairwise averages bring workers together: the two numbers of a pair graph that A2CiD2 needs.

Nabli, Belilovsky, Oyallon: "A2CiD2: Accelerating Asynchronous Communication in Decentralized Deep Learning", NeurIPS 2023,
section 3: with lambda_ij exchanges of the edge (i, j) in a unit of time and L = sum lambda_ij (e_i - e_j)(e_i - e_j)^T,

    chi_1 = 1 / (smallest positive eigenvalue of L),
    chi_2 = 1/2 max over the edges of (e_i - e_j)^T L^+ (e_i - e_j): half of the largest effective resistance.

chi_2 <= chi_1; on a ring of n chi_1 grows as n^2 and chi_2 as n, on the complete graph they are the same.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hvd_gossip.topology.base import Topology


def pair_rates(topology: Topology, exchanges: float) -> np.ndarray:
    """lambda_ij of pairwise averaging whose initiators choose each neighbour alike.

    Args:
        topology: of two workers or more; its bipartite form counts.
        exchanges: that an initiator starts in a unit of time.

    Returns:
        (size, size), float64, symmetric, in the order of `topology.ranks`.

    Raises:
        TopologyError: there is no connected bipartite form.
    """
    place = {rank: position for position, rank in enumerate(topology.ranks)}
    initiators, neighbours = topology.pairs()
    rates = np.zeros((topology.size, topology.size))
    for rank in initiators:
        partners = [place[partner] for partner in neighbours[rank]]
        rates[place[rank], partners] = exchanges / len(partners)
    symmetric: np.ndarray = rates + rates.T
    return symmetric


@lru_cache(maxsize=8)
def chi(topology: Topology, exchanges: float) -> tuple[float, float]:
    """(chi_1, chi_2), in units of time. Costs size^3; remembered, since all workers of a simulation ask.

    Raises:
        TopologyError: there is no connected bipartite form.
    """
    rates = pair_rates(topology, exchanges)
    values, vectors = np.linalg.eigh(np.diag(rates.sum(axis=1)) - rates)
    scaled = vectors[:, 1:] / np.sqrt(values[1:])
    inverse = scaled @ scaled.T
    resistance = inverse.diagonal()[:, None] + inverse.diagonal() - 2 * inverse
    return float(1 / values[1]), float(resistance[rates > 0].max() / 2)
