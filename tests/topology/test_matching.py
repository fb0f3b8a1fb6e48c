"""Rounds in pairs."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.topology.matching import BipartitePairs, MatchingTopology, RandomMatchings, _random_matching

SIZES = st.integers(1, 64)


def all_matchings(ranks: tuple[int, ...]) -> list[dict[int, int]]:
    """Every largest matching of the ranks, as partner of each."""
    if len(ranks) % 2:
        return [
            {idle: idle, **rest}
            for idle in ranks
            for rest in all_matchings(tuple(rank for rank in ranks if rank != idle))
        ]
    if not ranks:
        return [{}]
    first, *others = ranks
    return [
        {first: other, other: first, **rest}
        for other in others
        for rest in all_matchings(tuple(rank for rank in others if rank != other))
    ]


def assert_matching(topology: MatchingTopology, round_: int) -> None:
    partners = [topology.partner(rank, round_) for rank in range(topology.size)]
    assert [partners[partner] for partner in partners] == list(range(topology.size))
    assert sum(partner == rank for rank, partner in enumerate(partners)) == topology.size % 2


@given(SIZES, st.integers(0, 2**63 - 1), st.integers(0, 10**9))
def test_random_round_is_a_matching_with_at_most_one_idle(size: int, seed: int, round_: int) -> None:
    assert_matching(RandomMatchings("random", size, seed), round_)


@given(SIZES, st.integers(0, 200))
def test_bipartite_round_is_a_matching_of_even_with_odd_ranks(size: int, round_: int) -> None:
    topology = BipartitePairs("bipartite", size)
    assert_matching(topology, round_)
    for rank in range(size):
        partner = topology.partner(rank, round_)
        assert partner == rank or (partner - rank) % 2 == 1


def test_random_matchings_depend_on_the_seed_and_on_the_round() -> None:
    drawn = {
        tuple(RandomMatchings("random", 16, seed).partner(rank, round_) for rank in range(16))
        for seed in range(4)
        for round_ in range(4)
    }
    assert len(drawn) == 16


def test_a_known_matching_so_that_versions_of_the_package_agree() -> None:
    assert [RandomMatchings("random", 8, seed=1).partner(rank, 2) for rank in range(8)] == [1, 0, 3, 2, 7, 6, 5, 4]


def test_random_matchings_are_uniform() -> None:
    """Each of the 15 matchings of 6 ranks about equally often (5 standard deviations)."""
    topology, rounds = RandomMatchings("random", 6, seed=7), 3000
    drawn = Counter(tuple(topology.partner(rank, k) for rank in range(6)) for k in range(rounds))
    expected = rounds / 15
    assert len(drawn) == 15
    assert all(abs(count - expected) < 5 * expected**0.5 for count in drawn.values())


def test_a_round_is_drawn_once_for_all_ranks_and_instances() -> None:
    _random_matching.cache_clear()
    for rank in range(32):
        RandomMatchings("random", 32, seed=3).partner(rank, 9)
    assert _random_matching.cache_info().misses == 1


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("laziness", [0.0, 0.3, 0.9])
def test_gap_of_random_matchings_is_that_of_the_expectation_over_all_matchings(size: int, laziness: float) -> None:
    expectation, matchings = np.zeros((size, size)), all_matchings(tuple(range(size)))
    for partners in matchings:
        mixing = np.zeros((size, size))
        for rank, partner in partners.items():
            mixing[rank, rank] += 0.5
            mixing[rank, partner] += 0.5
        lazy = (1 - laziness) * mixing + laziness * np.eye(size)
        expectation += lazy.T @ lazy / len(matchings)
    second = np.sort(np.linalg.eigvalsh(expectation))[-2]
    gap = RandomMatchings("random", size, laziness=laziness).spectral_gap()
    assert gap == pytest.approx(1 - np.sqrt(max(second, 0)), abs=1e-7)


def test_distance_to_consensus_shrinks_at_the_gap_s_rate() -> None:
    """The root mean square over many seeds of the distance after a few rounds."""
    size, rounds = 10, 3
    values = np.eye(size)[:, :1] - 1 / size
    squares = []
    for seed in range(400):
        topology, mixed = RandomMatchings("random", size, seed), values
        for round_ in range(rounds):
            mixed = topology.matrix(round_) @ mixed
        squares.append(np.sum(mixed**2))
    rate = (np.mean(squares) / np.sum(values**2)) ** (1 / (2 * rounds))
    assert 1 - rate == pytest.approx(RandomMatchings("random", size).spectral_gap(), abs=0.01)


@pytest.mark.parametrize("size", [*range(2, 65), 127, 129, 254])
def test_bipartite_rotation_mixes_fast_at_any_size(size: int) -> None:
    topology = BipartitePairs("bipartite", size)
    assert topology.period is not None
    assert topology.spectral_gap() > 0.2
    assert len({topology.partner(0, round_) for round_ in range(topology.period)}) == topology.period


def test_bipartite_rotation_meets_other_partners_each_round() -> None:
    topology = BipartitePairs("bipartite", 16)
    assert topology.period == 4
    assert [topology.partner(0, round_) for round_ in range(4)] == [1, 3, 15, 7]
    assert topology.pairs()[1][0] == (1, 3, 7, 15)


def test_random_matchings_pair_every_even_with_every_odd_rank() -> None:
    initiators, neighbours = RandomMatchings("random", 5).pairs()
    assert list(initiators) == [0, 2, 4]
    assert set(itertools.chain.from_iterable(neighbours[rank] for rank in initiators)) == {1, 3}
    assert neighbours[3] == (0, 2, 4)
