"""Chunks travel in lanes: a few chunks under way at once, each lane with its own buffers and channel.

The buffers are as many as lanes times neighbours; `fitting_chunk_bytes` keeps their sum bounded whatever the model's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hvd_gossip.buffers.arrays import is_finite
from hvd_gossip.buffers.replica import Chunk, Replica
from hvd_gossip.tasks import all_of
from hvd_gossip.transport.endpoint import Array, Endpoint

LANES = 2
BUFFER_BUDGET = 16 << 20
"""Upper bound of all lanes' buffers together, bytes."""
SMALLEST_CHUNK = 16 << 10
Mix = Callable[[Chunk, Array, dict[int, Array]], None]
"""mix(chunk, what was sent, what each sender sent): arrays on the replica's device, of the wire's type, valid during the
call; the senders' may be used as scratch."""


def fitting_chunk_bytes(wanted: int, neighbours: int) -> int:
    """The chunk size, at most `wanted`, with which all buffers of all lanes stay within BUFFER_BUDGET."""
    return max(min(wanted, BUFFER_BUDGET // (LANES * (neighbours + 1))), SMALLEST_CHUNK)


class Lanes:
    """Sends a replica's chunks and receives its peers'. Owner: the engine's thread.

    Args:
        endpoint: access to the peers.
        replica: whose chunks.
        wire: the setting `wire_dtype`.
        channel: the first of LANES channels.
        corrected: send parameters plus correction (a snapshot), not the parameters as they are.
    """

    def __init__(self, endpoint: Endpoint, replica: Replica, wire: str, channel: int, *, corrected: bool) -> None:
        self._endpoint = endpoint
        self._replica = replica
        self._wire = wire
        self._channel = channel
        self._corrected = corrected
        self._pool: dict[tuple[str, int], list[Array]] = {}
        self.nbytes = sum(chunk.x.size * replica.wire_type(chunk, wire).itemsize for chunk in replica.chunks)

    async def exchange(self, senders: Sequence[int], receivers: Sequence[int], mix: Mix) -> None:
        """Sends every chunk to the receivers and has `mix` called with what the senders sent, chunk by chunk."""
        if senders or receivers:
            lanes = [self._lane(lane, senders, receivers, mix) for lane in range(LANES)]
            await all_of([self._endpoint.spawn(lane, ("exchange with", *senders, *receivers)) for lane in lanes])

    async def _lane(self, lane: int, senders: Sequence[int], receivers: Sequence[int], mix: Mix) -> None:
        endpoint, space, channel = self._endpoint, self._replica.space, self._channel + lane
        for chunk in self._replica.chunks[lane::LANES]:
            borrowed = {peer: self._borrow(chunk) for peer in senders}
            arriving = {peer: buffer[: chunk.x.size] for peer, buffer in borrowed.items()}
            moving = [endpoint.recv(peer, channel, buffer) for peer, buffer in arriving.items()]
            mine, own_buffer = self._outgoing(chunk)
            await space.settled(endpoint)
            moving += [endpoint.send(peer, channel, mine) for peer in receivers]
            await all_of(moving)
            with space.computing():
                mix(chunk, space.fetch(mine), {peer: space.fetch(buffer) for peer, buffer in arriving.items()})
            await space.settled(endpoint)
            for buffer in [*borrowed.values(), *own_buffer]:
                self._give_back(buffer)

    def _outgoing(self, chunk: Chunk) -> tuple[Array, list[Array]]:
        """What to send, and the borrowed buffer it lies in, if any."""
        if (
            not self._corrected
            and self._replica.space.direct
            and self._replica.wire_type(chunk, self._wire) == chunk.x.dtype
        ):
            return chunk.source, []
        buffer = self._borrow(chunk)
        wire = buffer[: chunk.x.size]
        if self._corrected:
            chunk.snapshot(wire)
        else:
            self._replica.space.publish(chunk.source, wire)
        return wire, [buffer]

    def _borrow(self, chunk: Chunk) -> Array:
        dtype = self._replica.wire_type(chunk, self._wire)
        free = self._pool.get((dtype.name, chunk.capacity))
        return free.pop() if free else self._replica.space.wire(chunk.capacity, dtype)

    def _give_back(self, buffer: Array) -> None:
        self._pool.setdefault((buffer.dtype.name, buffer.size), []).append(buffer)


def both_finite(mine: Array, theirs: Array) -> bool:
    """Whether an exchange of these may be averaged in; both ends of an edge come to the same answer."""
    return is_finite(theirs) and is_finite(mine)
