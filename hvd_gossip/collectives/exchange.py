"""Pairwise exchange: every rank sends every other one its rows, in n - 1 steps, each with another pair of partners.

In step k a rank sends to the one k places ahead of it and receives from the one k places behind, chunk by chunk. alltoall keeps
what comes; reducescatter adds it to the rows of its own. As many bytes as around a ring, in one hop: half types travel as they
are, and are added in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hvd_gossip.collectives.flow import WINDOW, ChunkPool, Receives, SendQueue, Transfer
from hvd_gossip.collectives.reduction import Reduction
from hvd_gossip.collectives.rows import starts_of
from hvd_gossip.transport.endpoint import Array


async def exchange_counts(transfer: Transfer, counts: Sequence[int]) -> list[int]:
    """What every rank has for this one, given what this one has for each: by their index among the transfer's ranks."""
    size, me = len(transfer.ranks), transfer.position
    endpoint, channel = transfer.endpoint, transfer.channel
    given, taken = np.array(counts, np.int64), np.array(counts, np.int64)
    others = [index for index in range(size) if index != me]
    receives = [endpoint.recv(transfer.ranks[index], channel, taken[index : index + 1]) for index in others]
    try:
        sends = [endpoint.send(transfer.ranks[index], channel, given[index : index + 1]) for index in others]
        for future in (*receives, *sends):
            await future
    finally:
        for receive in receives:
            receive.cancel()
    return [int(count) for count in taken]


class _Partners:
    """The partners of one step, and the chunks of what is to be sent and received."""

    def __init__(self, transfer: Transfer, step: int) -> None:
        self.ahead = (transfer.position + step) % len(transfer.ranks)
        self.behind = (transfer.position - step) % len(transfer.ranks)
        self.receives = Receives(transfer, self.behind)
        self.sends = SendQueue(transfer, self.ahead, self.receives.abort)

    def send(self, block: Array, chunk: int) -> None:
        for start in range(0, block.size, chunk):
            self.sends.put(block[start : start + chunk])


async def alltoall(
    transfer: Transfer, source: Array, output: Array, given: Sequence[int], received: Sequence[int]
) -> None:
    """output <- every rank's block for this one, in the order of the transfer's ranks.

    Args:
        source: 1-D; this rank's blocks for each rank follow each other in it.
        output: 1-D, as long as all received blocks together.
        given, received: lengths of the blocks, elements.

    Raises:
        TransportError: a peer failed.
    """
    me, chunk = transfer.position, transfer.chunk_length(source.dtype)
    out, into = starts_of(given), starts_of(received)
    with transfer.memory.computing():
        output[into[me] : into[me + 1]] = source[out[me] : out[me + 1]]
    for step in range(1, len(transfer.ranks)):
        partners = _Partners(transfer, step)
        partners.send(source[out[partners.ahead] : out[partners.ahead + 1]], chunk)
        await _receive(partners, output[into[partners.behind] : into[partners.behind + 1]], chunk)


async def _receive(partners: _Partners, block: Array, chunk: int) -> None:
    """block <- what the partner behind sends; done when all is sent, too."""
    receives, ahead = partners.receives, 0
    try:
        while ahead < block.size or len(receives):
            while ahead < block.size and len(receives) < WINDOW:
                await receives.post(block[ahead : ahead + chunk], None)
                ahead += chunk
            await receives.next()
        await partners.sends.drained()
    finally:
        receives.cancel()


async def reduce_scatter(
    transfer: Transfer, source: Array, output: Array, lengths: Sequence[int], reduction: Reduction
) -> None:
    """output <- the reduction of every rank's block for this one.

    Args:
        source: 1-D; the blocks for each rank follow each other in it.
        output: 1-D, this rank's block.
        lengths: of the blocks, elements; the same on all ranks.

    Raises:
        TransportError: a peer failed.
    """
    me, chunk = transfer.position, transfer.chunk_length(reduction.accumulator)
    starts = starts_of(lengths)
    pool = ChunkPool(transfer.memory, min(chunk, max(1, output.size)), reduction.dtype, 2 * WINDOW)
    total = transfer.memory.empty(output.size, reduction.accumulator) if reduction.widened else output
    source = _prescaled(transfer, source, reduction)
    with transfer.memory.computing():
        total[...] = source[starts[me] : starts[me + 1]]

    def add(start: int, stop: int, arrived: Array) -> None:
        reduction.combine(total[start:stop], total[start:stop], arrived)

    for step in range(1, len(transfer.ranks)):
        partners = _Partners(transfer, step)
        partners.send(source[starts[partners.ahead] : starts[partners.ahead + 1]], chunk)
        await _receive_and_add(transfer, partners, pool, output.size, chunk, add)
    with transfer.memory.computing():
        reduction.finish(output, total)


def _prescaled(transfer: Transfer, source: Array, reduction: Reduction) -> Array:
    """What is to be reduced: the source, or where a factor comes first, a copy times that."""
    if reduction.prescale == 1.0:
        return source
    copy = transfer.memory.empty(source.size, reduction.dtype)
    with transfer.memory.computing():
        reduction.prescaled(copy, source)
    return copy


async def _receive_and_add(
    transfer: Transfer,
    partners: _Partners,
    pool: ChunkPool,
    length: int,
    chunk: int,
    add: Callable[[int, int, Array], None],
) -> None:
    """Calls `add(start, stop, elements)` with each chunk that the partner behind sends; done when all is sent, too."""
    receives, ahead = partners.receives, 0
    try:
        while ahead < length or len(receives):
            while ahead < length and len(receives) < WINDOW:
                stop = min(ahead + chunk, length)
                buffer = await pool.take()
                await receives.post(buffer[: stop - ahead], (ahead, stop, buffer))
                ahead = stop
            start, stop, buffer = await receives.next()
            with transfer.memory.computing():
                add(start, stop, buffer[: stop - start])
            pool.give(buffer)
        await partners.sends.drained()
    finally:
        receives.cancel()
