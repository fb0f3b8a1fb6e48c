"""Broadcast down a tree, chunk by chunk, every rank passing a chunk on as soon as it has it.

Long arrays go down a chain: every link carries them once, and the time hardly grows with the number of ranks. Short ones
go down a binomial tree, whose depth is the logarithm of the number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

from hvd_gossip.collectives.flow import WINDOW, Receives, SendQueue, Transfer
from hvd_gossip.transport.endpoint import Array


async def tree_broadcast(transfer: Transfer, array: Array, root_rank: int) -> None:
    """array <- the root's array, on every rank. 1-D.

    Raises:
        TransportError: a peer failed.
    """
    size, root = len(transfer.ranks), transfer.ranks.index(root_rank)
    position = (transfer.position - root) % size
    parent, children = neighbours(position, size, array.nbytes >= size * transfer.chunk_bytes)
    chunk = transfer.chunk_length(array.dtype)
    chunks = [array[start : start + chunk] for start in range(0, array.size, chunk)]
    receives = Receives(transfer, parent + root)
    queues = [SendQueue(transfer, child + root, receives.abort) for child in children]
    try:
        if position:
            await _relay(receives, chunks, queues)
        else:
            for part in chunks:
                _pass_on(part, queues)
        for queue in queues:
            await queue.drained()
    finally:
        receives.cancel()


def neighbours(position: int, size: int, chain: bool) -> tuple[int, list[int]]:
    """Parent and children of a position in the tree. The root is position 0, and its own parent."""
    if chain:
        return max(0, position - 1), ([position + 1] if position + 1 < size else [])
    step = 1
    while step < size and not position & step:
        step *= 2
    children = []
    for power in _powers_below(step):
        if position + power < size:
            children.append(position + power)
    return (position - step if position else 0), children


def _powers_below(limit: int) -> list[int]:
    """Powers of two below a power of two, the largest, whose sub-tree is the deepest, first."""
    return [1 << shift for shift in reversed(range(limit.bit_length() - 1))]


async def _relay(receives: Receives, chunks: Sequence[Array], queues: Sequence[SendQueue]) -> None:
    ahead = 0
    for _ in chunks:
        while ahead < len(chunks) and len(receives) < WINDOW:
            await receives.post(chunks[ahead], chunks[ahead])
            ahead += 1
        _pass_on(await receives.next(), queues)


def _pass_on(chunk: Array, queues: Sequence[SendQueue]) -> None:
    for queue in queues:
        queue.put(chunk)
