"""Memory shared by the ranks of a host: over MPI on real processes, and in the simulator."""

import numpy as np
import pytest

from hvd_gossip.tasks import Future
from hvd_gossip.transport.endpoint import Array
from hvd_gossip.transport.simulated import SimulatedWorld
from tests.mpi import run_ranks
from tests.transport.test_mpi_endpoint import PREAMBLE


def test_all_ranks_of_the_simulator_have_the_same_bytes() -> None:
    world = SimulatedWorld(3)

    def shared(rank: int, name: str) -> Array:
        future: Future[Array] = world.endpoints[rank].shared(24, name, [0, 2])
        return future.result()

    shared(0, "one").view(np.float64)[1] = 2.5
    np.testing.assert_array_equal(shared(2, "one").view(np.float64), [0.0, 2.5, 0.0])
    assert not shared(2, "other").any()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_of_a_host_write_what_all_read(ranks: int) -> None:
    """Two pieces of memory, one of some of the ranks only; zero at first, and one's writing reaches the others."""
    script = (
        PREAMBLE
        + """
async def meet():
    everybody, last = list(range(ep.size)), [ep.size - 1]
    memory = await ep.shared(8 * ep.size, "all", everybody)
    if ep.rank in last:
        alone = await ep.shared(1000, "last", last)
        assert alone.size == 1000 and not alone.any()
    mine = memory.view(np.float64)
    first = float(mine[ep.rank])
    mine[ep.rank] = ep.rank + 0.5
    await ep.poll(lambda: bool((mine > 0).all()), "everybody's number")
    inbox = [np.empty(1, np.uint8) for _ in everybody]
    await all_of([ep.recv(peer, 7, inbox[peer]) for peer in everybody] + [ep.send(peer, 7, b"x") for peer in everybody])
    return [first, mine.tolist(), memory.size]

report(engine.call(meet))
engine.stop()
"""
    )
    numbers = [rank + 0.5 for rank in range(ranks)]
    assert run_ranks(ranks, script).in_rank_order() == [[0.0, numbers, 8 * ranks]] * ranks
