"""Ring allgather of blocks of different lengths, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from hvd_gossip.collectives.flow import CHUNK_BYTES, WINDOW, Receives, SendQueue
from hvd_gossip.transport.endpoint import Array, Endpoint


async def ring_allgather(
    endpoint: Endpoint,
    block: Array,
    output: Array,
    lengths: Sequence[int],
    ranks: Sequence[int],
    channel: int,
    chunk_bytes: int = CHUNK_BYTES,
) -> None:
    """output <- the blocks of all ranks, in the order of `ranks`.

    Args:
        block: this rank's elements, 1-D.
        output: 1-D, as long as all blocks together.
        lengths: of the blocks, elements.

    Raises:
        TransportError: a peer failed.
    """
    size, me = len(ranks), ranks.index(endpoint.rank)
    starts = [0, *accumulate(lengths)]
    chunk = max(1, chunk_bytes // block.dtype.itemsize)

    def chunks(rank: int) -> Iterator[tuple[int, int]]:
        for start in range(starts[rank], starts[rank + 1], chunk):
            yield start, min(start + chunk, starts[rank + 1])

    own = output[starts[me] : starts[me + 1]]
    if size == 1:
        own[...] = block
        return
    receives = Receives(endpoint, ranks[me - 1], channel)
    sends = SendQueue(endpoint, ranks[(me + 1) % size], channel, receives.abort)
    schedule = ((step, bounds) for step in range(size - 1) for bounds in chunks((me - step - 1) % size))
    try:
        for start, stop in chunks(me):
            sends.put(block[start - starts[me] : stop - starts[me]])
        own[...] = block
        for _ in range(WINDOW):
            _post_next(receives, output, schedule)
        while len(receives):
            step, (start, stop) = await receives.next()
            if step < size - 2:
                sends.put(output[start:stop])
            _post_next(receives, output, schedule)
        await sends.drained()
    finally:
        receives.cancel()


def _post_next(receives: Receives, output: Array, schedule: Iterator[tuple[int, tuple[int, int]]]) -> None:
    slot = next(schedule, None)
    if slot is not None:
        start, stop = slot[1]
        receives.post(output[start:stop], slot)
