"""An endpoint that tells of its messages: what it sends and receives is what the bare one does, and each is seen once."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvd_gossip.observe.traced import TracedEndpoint
from hvd_gossip.transport.endpoint import Endpoint
from hvd_gossip.transport.simulated import SimulatedWorld

Spans = list[tuple[str, str, float, float, dict[str, int], str]]


def run(main: Any, ranks: int = 2) -> list[Spans]:
    """Runs a coroutine function main(endpoint) on traced endpoints; what each one told."""
    world = SimulatedWorld(ranks)
    told: list[Spans] = [[] for _ in range(ranks)]

    def span(rank: int) -> Any:
        return lambda row, name, start, end, args, track: told[rank].append((row, name, start, end, args, track))

    for rank, endpoint in enumerate(world.endpoints):
        endpoint.spawn(main(TracedEndpoint(endpoint, span(rank))), "main")
    world.run()
    return told


def test_messages_that_overlap_are_one_event_a_direction() -> None:
    async def main(endpoint: Endpoint) -> None:
        peer = 1 - endpoint.rank
        arrays = [np.full(100, endpoint.rank, np.float64) for _ in range(3)]
        into = [np.zeros(100) for _ in range(3)]
        futures = [endpoint.recv(peer, 5, one) for one in into] + [endpoint.send(peer, 5, one) for one in arrays]
        for future in futures:
            await future
        assert all((one == peer).all() for one in into)

    for rank, spans in enumerate(run(main)):
        seen = sorted((row, name, args["messages"], args["bytes"], track) for row, name, _, _, args, track in spans)
        peer = f"peer {1 - rank}"
        assert seen == [(peer, "RECEIVE", 3, 2400, "RECEIVE"), (peer, "SEND", 3, 2400, "SEND")]
        assert all(start <= end for _, _, start, end, _, _ in spans)


def test_a_wait_for_a_late_peer_is_as_long_as_it_was() -> None:
    async def main(endpoint: Endpoint) -> None:
        if endpoint.rank == 0:
            await endpoint.sleep(2.0)
            await endpoint.send(1, 5, b"late")
        else:
            await endpoint.recv(0, 5, np.zeros(4, np.uint8))

    (row, name, start, end, args, _) = run(main)[1][0]
    assert (row, name, args) == ("peer 0", "RECEIVE", {"messages": 1, "bytes": 4})
    assert start == 0.0
    assert end >= 2.0


def test_exchanges_that_follow_each_other_are_two_events_and_listening_is_none() -> None:
    async def main(endpoint: Endpoint) -> None:
        for _ in range(2):
            if endpoint.rank == 0:
                await endpoint.send(1, 5, b"word")
                await endpoint.recv_any(6)
            else:
                assert (await endpoint.recv_any(5)).data == b"word"
                await endpoint.send(0, 6, b"answer")

    sender, listener = run(main)
    assert [name for _, name, *_ in sender] == ["SEND", "SEND"]
    assert [args["bytes"] for *_, args, _ in listener] == [6, 6]
