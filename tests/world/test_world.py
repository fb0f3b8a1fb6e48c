"""Local and cross ranks, by Horovod's definitions."""

from hvd_gossip.world import World
from hvd_gossip.world.world import number_hosts


def world(rank: int, hosts: tuple[int, ...]) -> World:
    return World(rank, hosts, tuple(f"host{h}" for h in hosts))


def test_one_host() -> None:
    for rank in range(3):
        here = world(rank, (0, 0, 0))
        assert (here.rank, here.size) == (rank, 3)
        assert (here.local_rank, here.local_size) == (rank, 3)
        assert (here.cross_rank, here.cross_size) == (0, 1)
        assert here.is_homogeneous


def test_two_hosts_in_blocks_and_alternating() -> None:
    blocks = [world(rank, (0, 0, 1, 1)) for rank in range(4)]
    assert [w.local_rank for w in blocks] == [0, 1, 0, 1]
    assert [w.cross_rank for w in blocks] == [0, 0, 1, 1]
    alternating = [world(rank, (0, 1, 0, 1)) for rank in range(4)]
    assert [w.local_rank for w in alternating] == [0, 0, 1, 1]
    assert [w.cross_rank for w in alternating] == [0, 1, 0, 1]
    assert {w.cross_size for w in blocks + alternating} == {2}


def test_uneven_hosts() -> None:
    hosts = (0, 0, 0, 1, 2, 2)
    seen = [world(rank, hosts) for rank in range(6)]
    assert [w.local_rank for w in seen] == [0, 1, 2, 0, 0, 1]
    assert [w.local_size for w in seen] == [3, 3, 3, 1, 2, 2]
    assert [w.cross_rank for w in seen] == [0, 0, 0, 1, 2, 1]
    assert [w.cross_size for w in seen] == [3, 2, 1, 3, 3, 2]
    assert not seen[0].is_homogeneous


def test_hosts_are_numbered_by_their_lowest_rank() -> None:
    assert number_hosts([0, 1, 0, 1, 4]) == (0, 1, 0, 1, 2)
