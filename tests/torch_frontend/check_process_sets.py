"""Checks of operations and optimizers in process sets; run by test_process_sets.py."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch

from tests.ranks import UNDER_TEST
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks
from tests.torch_frontend.tensors import everybodys, ours, rows_of, same

_sets: dict[str, hvd.ProcessSet] = {}


def parity() -> hvd.ProcessSet:
    """The even or the odd ranks, with this rank among them."""
    if not _sets and hvd.size() > 1:
        _sets["even"] = hvd.add_process_set(range(0, hvd.size(), 2))
        _sets["odd"] = hvd.add_process_set(range(1, hvd.size(), 2))
    return _sets["odd" if hvd.rank() % 2 else "even"] if _sets else hvd.global_process_set


def other() -> hvd.ProcessSet | None:
    """The set that this rank is not in; None with one rank."""
    parity()
    return _sets.get("even" if hvd.rank() % 2 else "odd")


def members() -> list[int]:
    return list(range(hvd.rank() % 2, hvd.size(), 2))


def theirs(*shape: int) -> torch.Tensor:
    """The tensors of the set's ranks, stacked."""
    return everybodys(*shape)[members()]


def check_a_set_knows_its_ranks() -> None:
    mine = parity()
    assert mine.ranks == members()
    assert mine.size() == len(members())
    assert mine.rank() == members().index(hvd.rank())
    assert mine.included()
    assert mine.process_set_id == (1 + hvd.rank() % 2 if hvd.size() > 1 else 0)
    assert hvd.global_process_set.ranks == list(range(hvd.size()))
    if (not_mine := other()) is not None:
        assert not not_mine.included()


def check_reductions() -> None:
    mine, total = parity(), theirs(3).sum(0)
    torch.testing.assert_close(hvd.allreduce(ours(3), process_set=mine), total / len(members()))
    same(hvd.allreduce_(ours(3), op=hvd.Sum, process_set=mine), total)
    same(hvd.synchronize(hvd.allreduce_async(ours(3), op=hvd.Sum, process_set=mine)), total)
    same(hvd.synchronize(hvd.allreduce_async_(ours(3), op=hvd.Max, process_set=mine)), theirs(3).amax(0))
    for results in (
        hvd.grouped_allreduce([ours(3), ours(2)], op=hvd.Sum, process_set=mine),
        hvd.grouped_allreduce_([ours(3), ours(2)], op=hvd.Sum, process_set=mine),
        hvd.synchronize(hvd.grouped_allreduce_async([ours(3), ours(2)], op=hvd.Sum, process_set=mine)),
        hvd.synchronize(hvd.grouped_allreduce_async_([ours(3), ours(2)], op=hvd.Sum, process_set=mine)),
    ):
        same(results[0], total)
        same(results[1], theirs(2).sum(0))


def check_gathers_and_broadcasts() -> None:
    mine, root = parity(), members()[-1]  # a global rank
    for result in (
        hvd.allgather(ours(2, 3), process_set=mine),
        hvd.synchronize(hvd.allgather_async(ours(2, 3), process_set=mine)),
        hvd.grouped_allgather([ours(2, 3)], process_set=mine)[0],
        hvd.synchronize(hvd.grouped_allgather_async([ours(2, 3)], process_set=mine))[0],
    ):
        same(result, theirs(2, 3).flatten(0, 1))
    for result in (
        hvd.broadcast(ours(3), root, process_set=mine),
        hvd.broadcast_(ours(3), root, process_set=mine),
        hvd.synchronize(hvd.broadcast_async(ours(3), root, process_set=mine)),
        hvd.synchronize(hvd.broadcast_async_(ours(3), root, process_set=mine)),
    ):
        same(result, ours(3, rank=root))
    if hvd.size() > 1:
        with pytest.raises(ValueError, match="root rank"):
            hvd.broadcast(ours(3), 1 - hvd.rank() % 2, process_set=mine)
    assert hvd.allgather_object(hvd.rank(), process_set=mine) == members()
    assert hvd.broadcast_object(hvd.rank(), root, process_set=mine) == root
    hvd.barrier(process_set=mine)


def check_exchanges() -> None:
    mine, n, me = parity(), len(members()), members().index(hvd.rank())
    rows = torch.stack([ours(n, 2, rank=rank)[me] for rank in members()])
    same(hvd.alltoall(ours(n, 2), process_set=mine), rows)
    output, sizes = hvd.synchronize(hvd.alltoall_async(ours(n, 2), [1] * n, process_set=mine))
    same(output, rows)
    same(sizes, torch.ones(n, dtype=torch.int32))
    own = rows_of(theirs(n + 1).sum(0), n, me)
    for result in (
        hvd.reducescatter(ours(n + 1), op=hvd.Sum, process_set=mine),
        hvd.synchronize(hvd.reducescatter_async(ours(n + 1), op=hvd.Sum, process_set=mine)),
        hvd.grouped_reducescatter([ours(n + 1)], op=hvd.Sum, process_set=mine)[0],
        hvd.synchronize(hvd.grouped_reducescatter_async([ours(n + 1)], op=hvd.Sum, process_set=mine))[0],
    ):
        same(result, own)
    sparse = hvd.sparse_allreduce_async(torch.eye(3).to_sparse(), "eye", hvd.Sum, process_set=mine)()
    same(sparse.to_dense(), torch.eye(3) * n)


def check_gradients() -> None:
    mine, n, me = parity(), len(members()), members().index(hvd.rank())
    mean = sum(rank + 1 for rank in members()) / n
    for result_of, expected in (
        (lambda t: hvd.allreduce(t, process_set=mine), torch.full((n,), mean)),
        (lambda t: hvd.allgather(t, process_set=mine), torch.full((n,), mean)),
        (lambda t: hvd.broadcast(t, members()[0], process_set=mine), torch.full((n,), mean if me == 0 else 0.0)),
        (lambda t: hvd.alltoall(t, process_set=mine), torch.tensor([rank + 1.0 for rank in members()])),
        (lambda t: hvd.reducescatter(t, op=hvd.Sum, process_set=mine), n * torch.tensor([r + 1.0 for r in members()])),
    ):
        tensor = ours(n).requires_grad_()
        (result_of(tensor) * (hvd.rank() + 1)).sum().backward()
        torch.testing.assert_close(tensor.grad, expected)


def check_sets_do_not_wait_for_each_other() -> None:
    if hvd.size() == 1:
        return
    mine = parity()
    names = ["0", "1"] if hvd.rank() % 2 else ["0"]
    handles = [hvd.allreduce_async(ours(3), name=name, op=hvd.Sum, process_set=mine) for name in names]
    everybody = hvd.allreduce_async(ours(3), name="0", op=hvd.Sum)  # the same name in another set
    for handle in handles:
        same(hvd.synchronize(handle), theirs(3).sum(0))
    same(hvd.synchronize(everybody), everybodys(3).sum(0))


def check_unnamed_operations_in_a_set_are_not_counted_outside() -> None:
    if hvd.rank() % 2:
        hvd.allreduce(ours(3), process_set=parity())
    same(hvd.allreduce(ours(3), op=hvd.Sum), everybodys(3).sum(0))


def check_who_is_outside_is_told() -> None:
    if (not_mine := other()) is not None:
        with pytest.raises(ValueError, match=f"Rank {hvd.rank()} is not a member of the provided process set"):
            hvd.allreduce(ours(3), process_set=not_mine)
    with pytest.raises(ValueError, match="has not been registered"):
        hvd.allgather(ours(3), process_set=hvd.ProcessSet([0]))
    plain = torch.optim.SGD(make_model().parameters(), lr=0.1)
    for algorithm in UNDER_TEST:
        with pytest.raises(ValueError, match="has not been registered"):
            hvd.DistributedOptimizer(plain, process_set=hvd.ProcessSet([0]), algorithm=algorithm)


def check_sets_can_be_removed() -> None:
    if hvd.size() < 3:  # every set exists already
        with pytest.raises(ValueError, match="duplicate"):
            hvd.add_process_set([0])
        return
    first = hvd.add_process_set(hvd.ProcessSet([0]))
    if first.included():
        same(hvd.allreduce(ours(3), process_set=first), ours(3))
    assert hvd.remove_process_set(first) is True
    assert hvd.remove_process_set(first) is False
    assert hvd.remove_process_set(hvd.global_process_set) is False
    with pytest.raises(ValueError, match="has not been registered"):
        hvd.barrier(process_set=first)


def train(model: torch.nn.Module, optimizer: Any, ranks: list[int]) -> torch.Tensor:
    for step in range(3):
        optimizer.zero_grad()
        for rank in ranks:
            (loss_of(model, make_batch(10 * step + rank)) / len(ranks)).backward()
        optimizer.step()
    return flat(model)


def check_optimizers_train_in_their_set() -> None:
    """Even and odd ranks train two models beside each other."""
    model, plain = make_model(), make_model()
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters(), process_set=parity()
    )
    result = train(model, optimizer, [hvd.rank()])
    expected = train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), members())
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def check_who_is_outside_of_an_optimizers_set_steps_by_itself() -> None:
    parity()
    first = _sets.get("even", hvd.global_process_set) if hvd.size() < 3 else hvd.add_process_set([0])
    for algorithm, kind in UNDER_TEST.items():
        if first.included() and not kind.is_wrapped_alone:
            continue  # the set is one rank, which has the algorithm's own momentum
        model, plain = make_model(), make_model()
        optimizer = hvd.DistributedOptimizer(
            torch.optim.SGD(model.parameters(), lr=0.1), algorithm=algorithm, process_set=first
        )
        result = train(model, optimizer, [hvd.rank()])
        assert torch.equal(result, train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), [hvd.rank()]))


def check_optimizers_keep_their_set_when_they_are_copied() -> None:
    model = make_model()
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), process_set=parity())
    pairs = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    result = train(model, optimizer, [hvd.rank()])
    for pair in pairs:
        assert torch.equal(train(pair[0], pair[1], [hvd.rank()]), result)


def check_gossip_in_a_set() -> None:
    for algorithm, kind in UNDER_TEST.items():
        if kind.averages != "parameters":
            continue
        model = make_model()
        plain = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = hvd.DistributedOptimizer(plain, algorithm=algorithm, process_set=parity())
        train(model, optimizer, [hvd.rank()])
        with hvd.consensus(model):
            mean = flat(model)
        everybody = hvd.allgather(mean.unsqueeze(0), process_set=parity())
        assert all(torch.equal(everybody[0], other) for other in everybody), algorithm


def check_adasum_is_for_all_ranks() -> None:
    if hvd.size() == 1:
        return
    model = make_model()
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NotImplementedError, match="Adasum does not support non-global process sets"):
        hvd.DistributedOptimizer(plain, op=hvd.Adasum, process_set=parity())


if __name__ == "__main__":
    run_checks(globals(), process_sets="dynamic")
