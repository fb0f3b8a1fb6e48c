"""The named networks say what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from hvd_gossip.errors import ConfigError
from hvd_gossip.transport.link_models import NETWORKS, find_network
from hvd_gossip.transport.simulated import SimulatedWorld


def exchange_seconds(name: str, pairs: list[tuple[int, int]], nbytes: int) -> float:
    """Both ways between pairs of ranks, all at once."""
    world = SimulatedWorld(16, links=find_network(name).links(), payload_scale=nbytes / 4)
    moving = []
    for pair in pairs:
        for source, dest in (pair, pair[::-1]):
            moving.append(world.endpoints[dest].recv(source, 64, np.zeros(4, np.uint8)))
            moving.append(world.endpoints[source].send(dest, 64, np.zeros(4, np.uint8)))
    world.run(moving)
    return world.now


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_network_is_valid_and_carries_both_directions_at_once(name: str) -> None:
    network = find_network(name)
    network.links().validate(64)
    seconds = exchange_seconds(name, [(0, 8)], 10**8)
    assert seconds == pytest.approx(3 * network.latency + 1e8 / network.bandwidth)


def test_ranks_of_a_host_share_its_bandwidth() -> None:
    alone = exchange_seconds("hosts-of-8-10g", [(0, 8)], 10**8)
    together = exchange_seconds("hosts-of-8-10g", [(rank, rank + 8) for rank in range(8)], 10**8)
    inside = exchange_seconds("hosts-of-8-10g", [(0, 1), (2, 3), (4, 5)], 10**8)
    assert together == pytest.approx(8 * alone, rel=1e-2)
    assert inside == pytest.approx(0.01, rel=1e-2)


def test_an_unknown_network_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ConfigError, match=r"'carrier-pigeon'.*ethernet-10g.*wide-area"):
        find_network("carrier-pigeon")
