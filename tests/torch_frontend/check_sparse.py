"""Checks of sparse_allreduce_async; run by test_sparse.py."""

from __future__ import annotations

from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch

from tests.torch_frontend.ranks import run_checks
from tests.torch_frontend.tensors import FLOATS, same

ROWS = 7


def sparse(rank: int, dtype: torch.dtype = torch.float32, width: int = 2) -> torch.Tensor:
    """Rows `rank` (twice) and 5 of a matrix; on rank 1 no row at all."""
    rows = torch.tensor([] if rank == 1 else [rank, 5, rank], dtype=torch.int64)
    values = torch.arange(len(rows) * width).reshape(-1, width) + rank
    return torch.sparse_coo_tensor(rows.unsqueeze(0), values.to(dtype), (ROWS, width), check_invariants=True)


def total(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.stack([sparse(rank, dtype).to_dense() for rank in range(hvd.size())]).sum(0).to(dtype)


def check_sums_and_averages() -> None:
    for dtype in (*FLOATS, torch.int64):
        handle = hvd.sparse_allreduce_async(sparse(hvd.rank(), dtype), "sum", hvd.Sum)
        output = hvd.synchronize(handle)
        assert hvd.poll(handle)
        assert output.is_coalesced()
        same(output.to_dense(), total(dtype))
    average = hvd.sparse_allreduce_async(sparse(hvd.rank()), name="mean", op=hvd.Average)()  # as Horovod's is used
    torch.testing.assert_close(average.to_dense(), total() / hvd.size())


def check_only_rows_that_somebody_has_are_in_the_result() -> None:
    output = hvd.sparse_allreduce_async(sparse(hvd.rank()), "rows", hvd.Sum)()
    having = [rank for rank in range(hvd.size()) if rank != 1]
    assert output.indices().flatten().tolist() == sorted({5, *having})


def check_more_than_one_sparse_dimension() -> None:
    def diagonal(rank: int) -> torch.Tensor:
        return (torch.eye(3) * (rank + 1)).to_sparse()

    output = hvd.sparse_allreduce_async(diagonal(hvd.rank()), "diagonal", hvd.Sum)()
    same(output.to_dense(), torch.eye(3) * sum(range(1, hvd.size() + 1)))


def check_nothing_at_all() -> None:
    empty = torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.int64), torch.empty(0, 4), (ROWS, 4), check_invariants=True
    )
    output = hvd.sparse_allreduce_async(empty, "nothing", hvd.Average)()
    same(output.to_dense(), torch.zeros(ROWS, 4))


def check_what_cannot_be_reduced() -> None:
    with pytest.raises(ValueError, match=r"allreduce\.dense: a tensor of layout torch\.sparse_coo is needed"):
        hvd.sparse_allreduce_async(torch.ones(2), "dense", hvd.Sum)
    with pytest.raises(NotImplementedError, match="only be averaged or summed"):
        hvd.sparse_allreduce_async(sparse(0), "largest", hvd.Max)


def check_ranks_that_disagree_on_sparsity_all_get_an_error() -> None:
    if hvd.size() == 1:
        return
    for _ in range(2):  # nothing is left behind
        mine = sparse(hvd.rank())
        handle: Any
        if hvd.rank():
            handle = hvd.sparse_allreduce_async(mine, "mixed", hvd.Sum)
        else:
            handle = hvd.allreduce_async(mine.to_dense(), name="mixed", op=hvd.Sum)
        with pytest.raises(hvd.HorovodInternalError, match=r"allreduce\.mixed"):
            hvd.synchronize(handle)
    same(hvd.sparse_allreduce_async(sparse(hvd.rank()), "mixed", hvd.Sum)().to_dense(), total())


if __name__ == "__main__":
    run_checks(globals())
