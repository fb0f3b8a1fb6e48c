"""Tensors of which every rank knows every rank's."""

from __future__ import annotations

import hvd_gossip.torch as hvd
import torch

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def ours(*shape: int, dtype: torch.dtype = torch.float32, rank: int | None = None) -> torch.Tensor:
    """A rank's tensor of small whole numbers: exact in every type, different on every rank."""
    rank = hvd.rank() if rank is None else rank
    numbers = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return ((numbers + rank) % 5).to(dtype)


def everybodys(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """All ranks' tensors, stacked."""
    return torch.stack([ours(*shape, dtype=dtype, rank=rank) for rank in range(hvd.size())])


def same(one: torch.Tensor, other: torch.Tensor, tolerance: float = 0.0) -> None:
    """Asserts that two tensors have the same type, shape and values."""
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def rows_of(total: torch.Tensor, members: int, member: int) -> torch.Tensor:
    """The rows of a tensor that a member of a process set gets from a reducescatter (Horovod's rule)."""
    few, longer = divmod(total.shape[0], members)
    lengths = [few + (i < longer) for i in range(members)]
    return total[sum(lengths[:member]) :][: lengths[member]]
