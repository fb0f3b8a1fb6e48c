"""Dense within a host, sparse across hosts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd_gossip.topology.hierarchical import HierarchicalTopology
from tests.topology.examples import assert_bipartite_form

HOSTS = st.lists(st.integers(0, 6), min_size=1, max_size=40)


def local_indices(hosts: list[int]) -> list[int]:
    return [hosts[:rank].count(host) for rank, host in enumerate(hosts)]


@given(HOSTS)
def test_rounds_alternate_between_all_of_a_host_and_equal_local_indices_across(hosts: list[int]) -> None:
    topology, local = HierarchicalTopology("hierarchical", hosts), local_indices(hosts)
    several, shared = len(set(hosts)) > 1, len(set(hosts)) < len(hosts)
    assert topology.period is not None
    for round_ in range(topology.period):
        inside = not several or (shared and round_ % 2 == 0)
        for rank in range(len(hosts)):
            weights = topology.in_weights(rank, round_)
            if inside:
                members = [other for other, host in enumerate(hosts) if host == hosts[rank]]
                assert weights == {other: 1 / len(members) for other in members if other != rank}
            else:
                assert len(weights) <= 1
                assert all(hosts[other] != hosts[rank] and local[other] == local[rank] for other in weights)
                assert all(weight == 0.5 for weight in weights.values())


@given(HOSTS)
def test_rank_with_a_counterpart_elsewhere_meets_one_in_every_round_across(hosts: list[int]) -> None:
    topology, local = HierarchicalTopology("hierarchical", hosts), local_indices(hosts)
    assert topology.period is not None
    across = range(1, topology.period, 2) if len(set(hosts)) < len(hosts) else range(topology.period)
    for rank in range(len(hosts)):
        if len(set(hosts)) > 1 and local.count(local[rank]) > 1:
            assert all(len(topology.out_weights(rank, round_)) == 1 for round_ in across)


@pytest.mark.parametrize(("hosts", "each"), [(2, 4), (4, 2), (8, 8), (4, 1), (1, 5)])
def test_equal_hosts_in_a_power_of_two_average_exactly_in_a_period(hosts: int, each: int) -> None:
    topology = HierarchicalTopology("hierarchical", [rank // each for rank in range(hosts * each)])
    assert topology.spectral_gap() == 1.0


@given(HOSTS)
def test_uneven_hosts_mix_still(hosts: list[int]) -> None:
    topology = HierarchicalTopology("hierarchical", hosts)
    product = np.eye(len(hosts))
    for round_ in range(300):
        product = topology.matrix(round_) @ product
    np.testing.assert_allclose(product, 1 / len(hosts), atol=1e-6)


def test_ranks_of_a_host_need_not_follow_each_other() -> None:
    topology = HierarchicalTopology("hierarchical", [5, 9, 5, 9])
    assert topology.in_weights(0, 0) == {2: 0.5}
    assert topology.in_weights(0, 1) == {1: 0.5}
    assert topology.in_weights(2, 1) == {3: 0.5}


def test_period_is_two_rounds_a_doubling_of_the_hosts() -> None:
    for hosts, rounds in ((2, 2), (3, 4), (5, 6), (8, 6)):
        assert HierarchicalTopology("hierarchical", [rank // 2 for rank in range(2 * hosts)]).period == rounds


@given(HOSTS)
def test_pairs_are_of_one_host_or_of_one_local_index(hosts: list[int]) -> None:
    form = assert_bipartite_form(HierarchicalTopology("hierarchical", hosts))
    local = local_indices(hosts)
    for a, b in form.edges:
        assert (hosts[a] == hosts[b]) != (local[a] == local[b])


def test_laziness_holds_in_both_kinds_of_round() -> None:
    topology = HierarchicalTopology("hierarchical", [0, 0, 1, 1], laziness=0.5)
    assert topology.in_weights(0, 0) == {1: 0.25}
    assert topology.in_weights(0, 1) == {2: 0.25}
    np.testing.assert_allclose(topology.matrix(1).diagonal(), 0.75)
