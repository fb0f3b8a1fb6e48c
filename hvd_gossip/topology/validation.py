"""Conditions that an algorithm puts on its topology, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hvd_gossip.errors import ConfigError, TopologyError
from hvd_gossip.topology import spectrum
from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.base_k import BaseGraph
from hvd_gossip.topology.cayley import CayleyTopology
from hvd_gossip.topology.hierarchical import HierarchicalTopology
from hvd_gossip.topology.lazy import Lazy
from hvd_gossip.topology.matching import MatchingTopology
from hvd_gossip.topology.spectrum import TOLERANCE, Matrix
from hvd_gossip.topology.symmetric import symmetrize

_DOUBLY_STOCHASTIC = (CayleyTopology, MatchingTopology, HierarchicalTopology, BaseGraph)
"""Doubly stochastic with a positive diagonal by their structure: building dense matrices to see it would cost O(n^2)."""
_TREES = "chain, star and binary-tree are trees"

NEEDS = (
    "none",
    "symmetric",
    "fixed-symmetric",
    "lazy-symmetric",
    "doubly-stochastic",
    "column-stochastic",
    "bipartite",
    "tree",
)
_SYMMETRIC = ("symmetric", "fixed-symmetric", "lazy-symmetric")
_FIXED = ("fixed-symmetric", "lazy-symmetric")
LAZY_ABOVE = -1 / 3
"""Above this are all eigenvalues of a topology that fits "lazy-symmetric"."""


def fit_topology(topology: Topology, needs: str) -> Topology:
    """The topology as an algorithm with these needs uses it: itself, or symmetrized if it must be symmetric and is not.

    "lazy-symmetric": (W + I) / 2 where W has an eigenvalue of LAZY_ABOVE or less.

    Raises:
        TopologyError, ConfigError: as `require_needs`.
    """
    require_needs(topology, needs)
    fitting = symmetrize(topology) if needs in _SYMMETRIC else topology
    if needs == "lazy-symmetric" and _smallest_eigenvalue(fitting) <= LAZY_ABOVE + TOLERANCE:
        return Lazy(fitting, 0.5)
    return fitting


def require_needs(topology: Topology, needs: str) -> None:
    """Checks that an algorithm can run on a topology.

    Args:
        needs: the algorithm's `needs`. "doubly-stochastic" and "symmetric" (see `fit_topology`): rows and columns of
            every matrix of a period sum to 1. "fixed-symmetric" and "lazy-symmetric": the same of one matrix, that of every
            round. "column-stochastic": columns do. All of these: the edges of a period join all
            ranks (along their directions), and the matrices bring them to one value. "bipartite": there is a connected
            bipartite form. "tree": the same n - 1 edges in every round, each both ways, join all n ranks. "none": nothing.

    Raises:
        TopologyError: a condition is not met; the message names the row, column or rank and the value.
        ConfigError: `needs` is none of these.
    """
    if needs not in NEEDS:
        raise ConfigError(f"an algorithm cannot need {needs!r} of a topology; valid: {', '.join(NEEDS)}")
    if needs == "bipartite":
        topology.pairs()
    elif needs == "tree":
        _require_tree(topology)
    elif needs != "none":
        if needs in _FIXED:
            _require_fixed(topology)
        _require_stochastic(topology, "doubly-stochastic" if needs in _SYMMETRIC else needs)
        _require_connected(topology)
        _require_convergent(topology)


def require_smallest_eigenvalue(topology: Topology, bound: float) -> float:
    """Checks lambda_min(W) > bound, for algorithms such as D2 (bound -1/3) that mix by one fixed symmetric matrix.

    Returns:
        lambda_min(W).

    Raises:
        TopologyError: the matrices vary from round to round or are not symmetric, or the eigenvalue is too small; the
            message gives the laziness that would do.
    """
    if topology.period != 1:
        raise TopologyError(
            f"topology {topology.name!r} changes from round to round; a bound on the smallest eigenvalue needs one fixed "
            "mixing matrix (ring, torus, hypercube, star and complete have one)"
        )
    smallest = _smallest_eigenvalue(topology)
    if smallest <= bound:
        laziness = (bound - smallest) / (1.0 - smallest)
        raise TopologyError(
            f"topology {topology.name!r}: the smallest eigenvalue of the mixing matrix is {smallest:.6g}, not above "
            f"{bound:.6g}; mix lazily, W <- (1 - l) W + l I, with l above {laziness:.6g}"
        )
    return smallest


def _smallest_eigenvalue(topology: Topology) -> float:
    if isinstance(topology, CayleyTopology):
        eigenvalues = topology.eigenvalues()
        if np.abs(eigenvalues.imag).max() <= TOLERANCE:
            return float(eigenvalues.real.min())
    matrix = topology.matrix()
    asymmetry = np.abs(matrix - matrix.T)
    if asymmetry.max() > TOLERANCE:
        row, column = np.unravel_index(int(asymmetry.argmax()), matrix.shape)
        raise TopologyError(
            f"topology {topology.name!r}: W[{row}, {column}] is {matrix[row, column]:.6g} but W[{column}, {row}] is "
            f"{matrix[column, row]:.6g}; a bound on the smallest eigenvalue needs a symmetric mixing matrix"
        )
    return spectrum.smallest_eigenvalue(matrix)


def _require_fixed(topology: Topology) -> None:
    if topology.size > 1 and topology.period != 1:
        raise TopologyError(
            f"topology {topology.name!r} changes from round to round; this algorithm remembers what each edge of one fixed "
            "graph has carried (ring, torus, hypercube, star, exponential and complete are fixed)"
        )


def _require_stochastic(topology: Topology, needs: str) -> None:
    if isinstance(topology, _DOUBLY_STOCHASTIC):
        return
    for round_ in range(_rounds(topology)):
        matrix = topology.matrix(round_)
        where = f"topology {topology.name!r}" + (f", round {round_}" if _rounds(topology) > 1 else "")
        rows_too = " (the rows do: rows say what a rank takes, columns what it gives; is it transposed?)"
        _require_sums(matrix.sum(axis=0), f"{where}: column", rows_too if _all_one(matrix.sum(axis=1)) else "")
        if needs == "doubly-stochastic":
            push_sum = " (the columns do: algorithms built on push-sum, such as sgp, can use it)"
            _require_sums(matrix.sum(axis=1), f"{where}: row", push_sum)


def _all_one(sums: Matrix) -> bool:
    return bool(np.all(np.abs(sums - 1.0) <= TOLERANCE))


def _require_sums(sums: Matrix, what: str, hint: str) -> None:
    if not _all_one(sums):
        worst = int(np.abs(sums - 1.0).argmax())
        raise TopologyError(f"{what} {worst} of the mixing matrix sums to {sums[worst]:.8g}, not to 1{hint}")


def _rounds(topology: Topology) -> int:
    """A period; one round of a random topology."""
    return topology.period or 1


def _require_connected(topology: Topology) -> None:
    if topology.period is None:
        if topology.spectral_gap() <= 0.0:
            raise TopologyError(f"topology {topology.name!r} has no spectral gap: its random rounds never average")
        return
    for neighbours, text in (
        (topology.out_weights, "no path leads from rank 0 to rank {rank}"),
        (topology.in_weights, "no path leads from rank {rank} to rank 0"),
    ):
        cut_off = set(range(topology.size)) - _reached(topology, neighbours)
        if cut_off:
            raise TopologyError(
                f"topology {topology.name!r} is not connected: {text.format(rank=min(cut_off))} "
                f"({len(cut_off)} of {topology.size} ranks), counting the edges of all {topology.period} rounds"
            )


def _require_tree(topology: Topology) -> None:
    if topology.period != 1:
        raise TopologyError(f"topology {topology.name!r} changes from round to round; a tree does not ({_TREES})")
    _require_connected(topology)
    directed = {(giver, receiver) for giver in range(topology.size) for receiver in topology.out_weights(giver, 0)}
    one_way = {(giver, receiver) for giver, receiver in directed if (receiver, giver) not in directed}
    if one_way:
        giver, receiver = min(one_way)
        raise TopologyError(
            f"topology {topology.name!r}: the edge {giver} -> {receiver} has no reverse; a tree's edges go both ways"
        )
    if len(directed) != 2 * (topology.size - 1):
        raise TopologyError(
            f"topology {topology.name!r} has {len(directed) // 2} edges among {topology.size} ranks, hence a cycle; a tree "
            f"has {topology.size - 1} ({_TREES})"
        )


def _reached(topology: Topology, neighbours: Callable[[int, int], Mapping[int, float]]) -> set[int]:
    """Ranks that rank 0 reaches over the edges of a period, stopping as soon as that is everybody."""
    reached, pending = {0}, [0]
    while pending and len(reached) < topology.size:
        rank = pending.pop()
        new = {n for round_ in range(_rounds(topology)) for n in neighbours(rank, round_)} - reached
        reached |= new
        pending.extend(new)
    return reached


def _require_convergent(topology: Topology) -> None:
    """Connected ranks that keep a share of their own always converge; without, they may swap values for ever."""
    if topology.period is None or isinstance(topology, _DOUBLY_STOCHASTIC):
        return
    kept = np.min([topology.matrix(round_).diagonal().copy() for round_ in range(topology.period)], axis=0)
    if kept.min() <= 0.0 and spectrum.convergence_rate(topology.matrix, topology.period) > 1.0 - 1e-9:
        empty = int(kept.argmin())
        raise TopologyError(
            f"topology {topology.name!r} never averages: its matrices swap values in a cycle (rank {empty} keeps "
            f"nothing of its own: W[{empty}, {empty}] is 0); set a laziness, such as 0.5"
        )
