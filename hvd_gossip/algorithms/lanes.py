"""Chunks travel in lanes: a few chunks under way at once, each lane with its own buffers and channel.

The buffers are as many as lanes times neighbours; `fitting_chunk_bytes` keeps their sum bounded whatever the model's size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from hvd_gossip.algorithms.limit import Limit
from hvd_gossip.algorithms.settings import MixingSettings
from hvd_gossip.buffers.arrays import is_finite, squared_distance
from hvd_gossip.buffers.replica import Chunk, Replica
from hvd_gossip.observe.counters import Counters
from hvd_gossip.tasks import all_of, completed
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
        settings: the wire's type, and how often to sample the consensus distance.
        counters: gets the samples.
        channel: the first of LANES channels.
        corrected: send parameters plus correction (a snapshot), not the parameters as they are.
        before: called with each chunk before it is read for sending.
        outgoing: what of a chunk to send, if neither: an array as long as the chunk and of its type.
        limit: bounds the transfer of each chunk; None: whoever awaits the exchange does.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        replica: Replica,
        settings: MixingSettings,
        counters: Counters,
        channel: int,
        *,
        corrected: bool,
        before: Callable[[Chunk], None] | None = None,
        outgoing: Callable[[Chunk], Array] | None = None,
        limit: Limit | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._replica = replica
        wire = settings.wire_dtype
        self._sample_every = settings.consensus_sample_every
        self._counters = counters
        self._channel = channel
        self._corrected = corrected
        self._before = before
        self._values = outgoing or (lambda chunk: chunk.source)
        self._limit = limit
        self._exchanges = 0
        self._types = [replica.wire_type(chunk, wire) for chunk in replica.chunks]
        self._pool: defaultdict[tuple[np.dtype[Any], int], list[Array]] = defaultdict(list)
        self._nbytes: int = sum(
            chunk.x.size * dtype.itemsize for chunk, dtype in zip(replica.chunks, self._types, strict=True)
        )

    @property
    def nbytes(self) -> int:
        """Bytes that an exchange sends to one receiver."""
        return self._nbytes

    def exchange(self, senders: Sequence[int], receivers: Sequence[int], mix: Mix) -> Coroutine[Any, Any, None]:
        """A coroutine that sends every chunk to the receivers and has `mix` called with what the senders sent, chunk by chunk."""
        if not senders and not receivers:
            return completed(None)
        self._exchanges += 1
        if senders and self._sample_every and self._exchanges % self._sample_every == 0:
            mix = self._measured(mix, len(senders))
        if len(self._replica.chunks) == 1:
            return self._lane(0, senders, receivers, mix)
        return self._side_by_side(senders, receivers, mix)

    async def _side_by_side(self, senders: Sequence[int], receivers: Sequence[int], mix: Mix) -> None:
        lanes = [self._lane(lane, senders, receivers, mix) for lane in range(LANES)]
        await all_of([self._endpoint.spawn(lane, ("exchange with", *senders, *receivers)) for lane in lanes])

    def _measured(self, mix: Mix, senders: int) -> Mix:
        """`mix` that also estimates this worker's share of the consensus distance, when the last chunk has come.

        Two independent workers at root mean square distance d from the mean are sqrt(2) d apart (the local estimator of Kong et
        al., "Consensus Control for Decentralized Deep Learning", ICML 2021).
        """
        left, squared = [len(self._replica.chunks)], [0.0]

        def measure(chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> None:
            squared[0] += self._squared(chunk, mine, arrived)
            left[0] -= 1
            if not left[0]:
                self._counters.consensus_sample = math.sqrt(squared[0] / senders / 2)
            mix(chunk, mine, arrived)

        return measure

    async def _lane(self, lane: int, senders: Sequence[int], receivers: Sequence[int], mix: Mix) -> None:
        endpoint, space, channel = self._endpoint, self._replica.space, self._channel + lane
        for chunk in self._replica.chunks[lane::LANES]:
            borrowed, moving = [], []
            arriving: dict[int, Array] = {}
            for peer in senders:
                buffer, arriving[peer] = self._borrow(chunk)
                borrowed.append(buffer)
                moving.append(endpoint.recv(peer, channel, arriving[peer]))
            if self._before is not None:
                self._before(chunk)
            mine, outgoing, own_buffers = self._outgoing(chunk, receivers)
            if not space.immediate:
                await space.settled(endpoint)
            for peer, wire in outgoing.items():
                moving.append(endpoint.send(peer, channel, wire))
            if self._limit is not None:
                self._limit.watch_all(moving)
            await all_of(moving)
            with space.computing():
                for peer, wire in arriving.items():
                    arriving[peer] = space.fetch(wire)
                mix(chunk, space.fetch(mine), arriving)
            if not space.immediate:
                await space.settled(endpoint)
            for buffer in (*borrowed, *own_buffers):
                self._pool[buffer.dtype, buffer.size].append(buffer)

    # What the wire holds: kinds of lanes differ in these.

    def _form(self, chunk: Chunk) -> tuple[np.dtype[Any], int, int]:
        """Type and length of a chunk on the wire, and the length of a buffer for any chunk of its flat buffer."""
        return self._types[chunk.index], chunk.x.size, chunk.capacity

    def _squared(self, chunk: Chunk, mine: Array, arrived: dict[int, Array]) -> float:
        """Sum over the senders of the squared distance to what they have of the chunk."""
        return sum(squared_distance(theirs, mine) for theirs in arrived.values())

    def _outgoing(self, chunk: Chunk, receivers: Sequence[int]) -> tuple[Array, dict[int, Array], list[Array]]:
        """What `mix` gets as sent, what each receiver is sent, and the borrowed buffers that these lie in."""
        if not self._corrected and self._replica.space.direct and self._types[chunk.index] == chunk.x.dtype:
            values = self._values(chunk)
            return values, dict.fromkeys(receivers, values), []
        buffer, wire = self._borrow(chunk)
        if self._corrected:
            chunk.snapshot(wire)
        else:
            self._replica.space.publish(self._values(chunk), wire)
        return wire, dict.fromkeys(receivers, wire), [buffer]

    def _borrow(self, chunk: Chunk) -> tuple[Array, Array]:
        """A buffer, and the part of it that the chunk fills on the wire."""
        dtype, length, capacity = self._form(chunk)
        free = self._pool[dtype, capacity]
        buffer = free.pop() if free else self._replica.space.wire(capacity, dtype)
        return buffer, buffer if length == capacity else buffer[:length]


def both_finite(mine: Array, theirs: Array) -> bool:
    """Whether an exchange of these may be averaged in; both ends of an edge come to the same answer."""
    return is_finite(theirs) and is_finite(mine)
