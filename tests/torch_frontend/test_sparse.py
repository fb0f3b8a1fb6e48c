"""Sums of sparse tensors: how entries are packed, and the sums in real ranks."""

from __future__ import annotations

import pytest
import torch
from hvd_gossip.torch.sparse import _pack, _sum
from hvd_gossip.torch.submit import Received

from hvd_gossip.collectives import Average, Sum
from tests.torch_frontend.ranks import RANKS, assert_passed, checks_in

FILE = "check_sparse.py"


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("check", checks_in(FILE))
def test_sparse(check: str, n: int) -> None:
    assert_passed(FILE, check, n, timeout=300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.float64])
@pytest.mark.parametrize(("shape", "sparse_dim"), [((4,), 1), ((4, 3), 1), ((4, 3), 2), ((4, 3, 2), 1), ((4, 3, 2), 2)])
def test_packed_entries_come_back(dtype: torch.dtype, shape: tuple[int, ...], sparse_dim: int) -> None:
    dense = (torch.arange(torch.Size(shape).numel()) % 3).reshape(shape).to(dtype)
    tensor = dense.to_sparse(sparse_dim).coalesce()
    packed = _pack(tensor)
    assert packed.dtype == torch.uint8
    assert packed.shape[0] == tensor._nnz()
    received = Received(torch.cat([packed, packed]), (tensor._nnz(), tensor._nnz()), (0, 1))
    assert torch.equal(_sum(received, tensor, Sum).to_dense(), dense * 2)
    assert torch.equal(_sum(received, tensor, Average).to_dense(), dense)


def test_indices_of_any_strides_are_packed() -> None:
    tensor = torch.sparse_coo_tensor(torch.tensor([[3, 0]])[:, :1], torch.ones(1), (4,), check_invariants=True)
    tensor = tensor.coalesce()
    assert tensor.indices().t().stride() != (1, 1)
    assert _pack(tensor)[0, :8].tolist() == [3, 0, 0, 0, 0, 0, 0, 0]


def test_a_row_travels_once_however_often_it_was_looked_up() -> None:
    """horovod#554: gathers of 4.25 GB, since every look-up sent its row."""
    embedding = torch.nn.Embedding(10, 4, sparse=True)
    embedding(torch.tensor([3] * 1000 + [7])).sum().backward()
    gradient = embedding.weight.grad
    assert gradient is not None
    assert gradient._nnz() == 1001
    assert _pack(gradient.coalesce()).shape == (2, 8 + 4 * 4)
