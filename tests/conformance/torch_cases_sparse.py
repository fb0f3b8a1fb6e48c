"""Horovod, API, horovod.torch: sparse tensors."""

from __future__ import annotations

from typing import Any

import torch

from tests.conformance.case import Cases, close
from tests.conformance.torch_framework import TorchFramework

CASES = Cases()
ROWS, COLUMNS, RATE = 6, 2, 0.5


def _sparse(rank: int) -> torch.Tensor:
    """Rows of which some are every rank's, some one rank's alone, and one twice."""
    index = torch.tensor([[0, 1 + rank % 4, 0]])
    values = torch.arange(3 * COLUMNS, dtype=torch.float32).reshape(3, COLUMNS) + rank
    return torch.sparse_coo_tensor(index, values, (ROWS, COLUMNS), check_invariants=True)


def _total(f: TorchFramework) -> torch.Tensor:
    return torch.stack([_sparse(rank).to_dense() for rank in range(f.hvd.size())]).sum(0)


@CASES.add()
def sparse_allreduce_gathers_indices_and_values(f: TorchFramework) -> None:
    """API, sparse_allreduce_async: Sum and Average of sparse tensors; a sparse tensor of the same shape."""
    for op, factor in ((f.hvd.Sum, 1), (f.hvd.Average, f.hvd.size())):
        result = f.hvd.synchronize(f.hvd.sparse_allreduce_async(_sparse(f.hvd.rank()), name="sparse", op=op))
        assert result.is_sparse
        assert tuple(result.shape) == (ROWS, COLUMNS)
        close(f.numpy(result.to_dense()), f.numpy(_total(f) / factor))


@CASES.add()
def the_handle_of_sparse_allreduce_can_be_called(f: TorchFramework) -> None:
    """Horovod's sparse_allreduce_async returns a function, which its users call in place of synchronize()."""
    handle = f.hvd.sparse_allreduce_async(_sparse(f.hvd.rank()), name="called", op=f.hvd.Sum)
    close(f.numpy(handle().to_dense()), f.numpy(_total(f)))


@CASES.add(ranks=3)
def sparse_allreduce_within_a_process_set(f: TorchFramework) -> None:
    """API, sparse_allreduce_async, process_set."""
    some = f.hvd.add_process_set([0, 2])
    if some.included():
        handle = f.hvd.sparse_allreduce_async(_sparse(f.hvd.rank()), name="of two", op=f.hvd.Average, process_set=some)
        expected = (_sparse(0).to_dense() + _sparse(2).to_dense()) / 2
        close(f.numpy(f.hvd.synchronize(handle).to_dense()), f.numpy(expected))
    assert f.hvd.remove_process_set(some) is True


def _embedding_after_a_step(f: TorchFramework, **options: Any) -> torch.Tensor:
    layer = torch.nn.Embedding(ROWS, COLUMNS, sparse=True)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    plain = torch.optim.SGD(layer.parameters(), lr=RATE)
    optimizer = f.hvd.DistributedOptimizer(plain, named_parameters=layer.named_parameters(), **options)
    rank = f.hvd.rank()
    layer(torch.tensor([0, 1 + rank % 4, 0])).mul(rank + 1.0).sum().backward()
    optimizer.step()
    return layer.weight.detach()


def _embedding_expected(f: TorchFramework) -> torch.Tensor:
    gradient = torch.zeros(ROWS, COLUMNS)
    for rank in range(f.hvd.size()):
        gradient[0] += 2 * (rank + 1.0)
        gradient[1 + rank % 4] += rank + 1.0
    weight: torch.Tensor = 1.0 - RATE * gradient / f.hvd.size()
    return weight


@CASES.add(averages=True)
def sparse_gradients_are_averaged(f: TorchFramework) -> None:
    """API, DistributedOptimizer: a model with sparse gradients."""
    close(f.numpy(_embedding_after_a_step(f)), f.numpy(_embedding_expected(f)))


@CASES.add(averages=True)
def sparse_gradients_are_averaged_as_dense(f: TorchFramework) -> None:
    """API, DistributedOptimizer, sparse_as_dense: converts all sparse gradients to dense and performs allreduce."""
    close(f.numpy(_embedding_after_a_step(f, sparse_as_dense=True)), f.numpy(_embedding_expected(f)))
