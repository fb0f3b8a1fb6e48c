"""The closed form of a ring allreduce against the package's own ring, event by event."""

from __future__ import annotations

import math

import pytest

from benchmarks.scale.ring import ASKING, ring_bytes, ring_seconds, simulate_ring
from hvd_gossip.transport.link_models import NETWORKS, find_network
from hvd_gossip.transport.simulated_links import Links

ONE_A_HOST = [name for name, network in NETWORKS.items() if network.ranks_per_host == 1]


@pytest.mark.parametrize("size", [2, 3, 16, 33])
def test_a_ring_takes_twice_n_less_one_steps(size: int) -> None:
    links = Links(latency=1e-3, bandwidth=1e6)
    seconds, sent = simulate_ring(size, 1e5, links)
    assert seconds == pytest.approx(2 * (size - 1) * (1e-3 + 1e5 / size / 1e6))
    assert seconds == pytest.approx(ring_seconds(size, 1e5, links))
    assert sent == pytest.approx(ring_bytes(size, 1e5)) == pytest.approx(2e5 * (size - 1) / size)


@pytest.mark.parametrize("name", ONE_A_HOST)
@pytest.mark.parametrize(("eager_limit", "latencies"), [(math.inf, 1), (4096, ASKING)])
def test_closed_form_is_what_the_events_give(name: str, eager_limit: float, latencies: int) -> None:
    links = find_network(name).links()
    seconds, _ = simulate_ring(16, 60e6, links, eager_limit)
    assert seconds == pytest.approx(ring_seconds(16, 60e6, links, latencies))


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - set(ONE_A_HOST)))
def test_with_hosts_the_closed_form_is_an_upper_bound_within_a_twentieth(name: str) -> None:
    links = find_network(name).links()
    seconds, _ = simulate_ring(32, 60e6, links)
    assert 0.95 <= seconds / ring_seconds(32, 60e6, links) <= 1.0 + 1e-9


def test_one_worker_pays_nothing() -> None:
    assert ring_seconds(1, 1e9, Links()) == 0.0
