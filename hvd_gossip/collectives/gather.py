"""Ring allgather of blocks of different lengths, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from hvd_gossip.collectives.flow import WINDOW, Receives, SendQueue, Transfer
from hvd_gossip.transport.endpoint import Array


async def ring_allgather(transfer: Transfer, block: Array, output: Array, lengths: Sequence[int]) -> None:
    """output <- the blocks of all ranks, in the order of the transfer's ranks.

    Args:
        block: this rank's elements, 1-D.
        output: 1-D, as long as all blocks together.
        lengths: of the blocks, elements.

    Raises:
        TransportError: a peer failed.
    """
    size, me = len(transfer.ranks), transfer.position
    starts = [0, *accumulate(lengths)]
    chunk = transfer.chunk_length(block.dtype)

    def chunks(rank: int) -> Iterator[tuple[int, int]]:
        for start in range(starts[rank], starts[rank + 1], chunk):
            yield start, min(start + chunk, starts[rank + 1])

    receives = Receives(transfer, me - 1)
    sends = SendQueue(transfer, me + 1, receives.abort)
    schedule = ((step, bounds) for step in range(size - 1) for bounds in chunks((me - step - 1) % size))
    try:
        if size > 1:
            for start, stop in chunks(me):
                sends.put(block[start - starts[me] : stop - starts[me]])
        with transfer.memory.computing():
            output[starts[me] : starts[me + 1]] = block
        for _ in range(WINDOW):
            await _post_next(receives, output, schedule)
        while len(receives):
            step, (start, stop) = await receives.next()
            if step < size - 2:
                sends.put(output[start:stop])
            await _post_next(receives, output, schedule)
        await sends.drained()
    finally:
        receives.cancel()


async def _post_next(receives: Receives, output: Array, schedule: Iterator[tuple[int, tuple[int, int]]]) -> None:
    slot = next(schedule, None)
    if slot is not None:
        start, stop = slot[1]
        await receives.post(output[start:stop], slot)
