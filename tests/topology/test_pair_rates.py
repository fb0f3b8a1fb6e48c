"""Rates of pairwise averaging, against closed forms and the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.topology import fit_topology, make_topology
from hvd_gossip.topology.base import Topology
from hvd_gossip.topology.pair_rates import chi, pair_rates
from hvd_gossip.topology.placed import Placed


def pairs_of(name: str, size: int) -> Topology:
    return fit_topology(make_topology(name, size), "bipartite")


def test_an_initiator_shares_its_exchanges_among_its_neighbours() -> None:
    rates = pair_rates(pairs_of("star", 4), 2.0)
    assert np.array_equal(rates, rates.T)
    assert rates.sum() / 2 == pytest.approx(2.0 * len(pairs_of("star", 4).pairs()[0]))


@pytest.mark.parametrize("exchanges", [1.0, 0.25])
def test_two_workers(exchanges: float) -> None:
    """One edge: eigenvalue 2 lambda, resistance 1 / lambda."""
    assert chi(pairs_of("complete", 2), exchanges) == pytest.approx((0.5 / exchanges, 0.5 / exchanges))


@pytest.mark.parametrize("size", [4, 16, 64])
def test_a_ring(size: int) -> None:
    """Every edge at rate 1/2: eigenvalue 1 - cos(2 pi / n); two paths of 1 and n - 1 edges of resistance 2."""
    expected = 1 / (1 - np.cos(2 * np.pi / size)), (size - 1) / size
    assert chi(pairs_of("ring", size), 1.0) == pytest.approx(expected)


def test_by_the_definition_on_an_irregular_graph() -> None:
    topology = pairs_of("binary-tree", 11)
    rates = pair_rates(topology, 1.0)
    laplacian = np.diag(rates.sum(axis=1)) - rates
    inverse = np.linalg.pinv(laplacian)
    unit = np.eye(11)
    edges = [(i, j) for i in range(11) for j in range(i) if rates[i, j]]
    resistance = max((unit[i] - unit[j]) @ inverse @ (unit[i] - unit[j]) for i, j in edges)
    chi_1, chi_2 = chi(topology, 1.0)
    assert chi_1 == pytest.approx(np.linalg.norm(inverse, 2))
    assert chi_2 == pytest.approx(resistance / 2)
    assert chi_2 <= chi_1


def test_ranks_of_a_process_set_are_counted_from_their_places() -> None:
    inside = pairs_of("ring", 4)
    np.testing.assert_array_equal(pair_rates(Placed(inside, (2, 3, 7, 9)), 1.0), pair_rates(inside, 1.0))
