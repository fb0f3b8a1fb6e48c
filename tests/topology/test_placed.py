"""A topology on the ranks of a process set is the topology of as many workers, with other numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.errors import ConfigError
from hvd_gossip.topology import TOPOLOGIES, make_topology
from hvd_gossip.topology.placed import Placed

RANKS = (1, 4, 5, 9)


@pytest.mark.parametrize("name", [name for name in TOPOLOGIES if name != "hierarchical"])
def test_weights_are_those_of_the_places(name: str) -> None:
    inner = make_topology(name, 4, seed=3)
    placed = Placed(inner, RANKS)
    for round_ in range(6):
        for place, rank in enumerate(RANKS):
            for ours, theirs in ((placed.in_weights, inner.in_weights), (placed.out_weights, inner.out_weights)):
                assert ours(rank, round_) == {RANKS[j]: weight for j, weight in theirs(place, round_).items()}
        np.testing.assert_array_equal(placed.matrix(round_), inner.matrix(round_))


def test_pairs_are_those_of_the_places() -> None:
    inner = make_topology("ring", 4)
    placed = Placed(inner, RANKS)
    initiators, neighbours = placed.pairs()
    theirs, near = inner.pairs()
    assert list(initiators) == [RANKS[place] for place in theirs]
    assert neighbours == {RANKS[place]: [RANKS[other] for other in others] for place, others in near.items()}


def test_the_rest_is_the_same() -> None:
    inner = make_topology("exponential", 4)
    placed = Placed(inner, RANKS)
    assert (placed.name, placed.size, placed.period) == (inner.name, 4, inner.period)
    assert placed.spectral_gap() == inner.spectral_gap()
    assert list(placed.ranks) == list(RANKS)
    assert list(inner.ranks) == [0, 1, 2, 3]


@pytest.mark.parametrize("ranks", [(0, 1, 2), (0, 1, 2, 3, 4), (0, 2, 1, 3), (0, 1, 1, 3)])
def test_ranks_that_are_no_place(ranks: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="cannot be placed"):
        Placed(make_topology("ring", 4), ranks)


def test_a_rank_outside_has_no_weights() -> None:
    with pytest.raises(KeyError):
        Placed(make_topology("ring", 4), RANKS).in_weights(0, 0)
