"""Checks of barrier and join; run by test_meeting_ops.py."""

from __future__ import annotations

import hvd_gossip.torch as hvd
import pytest
import torch

from tests.ranks import UNDER_TEST
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks
from tests.torch_frontend.tensors import everybodys, ours, same


def check_barrier() -> None:
    for _ in range(3):
        assert hvd.barrier() is None


def check_join_gives_the_last_rank() -> None:
    """Rank r has r allreduces more than rank 0, so the last rank joins last."""
    for step in range(hvd.rank() + 1):
        hvd.allreduce(ours(3), name=f"step.{step}")
    assert hvd.join() == hvd.size() - 1
    same(hvd.allreduce(ours(3), op=hvd.Sum), everybodys(3).sum(0))  # all are back


def check_all_ranks_get_the_same_answer() -> None:
    answer = hvd.join(device=0)
    assert hvd.allgather_object(answer) == [answer] * hvd.size()
    assert 0 <= answer < hvd.size()


def check_joined_ranks_count_as_zeros() -> None:
    for step in range(hvd.rank() + 1):
        there = range(step, hvd.size())  # the others have joined, or will before this is answered
        total = torch.stack([ours(3, rank=rank) for rank in there]).sum(0)
        same(hvd.allreduce(ours(3), name=f"sum.{step}", op=hvd.Sum), total)
        torch.testing.assert_close(hvd.allreduce(ours(3), name=f"mean.{step}"), total / hvd.size())
        grouped = hvd.grouped_allreduce([ours(3), ours(2)], name=f"group.{step}", op=hvd.Sum)
        same(grouped[0], total)
    hvd.join()


def check_unequal_numbers_of_batches_with_every_algorithm() -> None:
    for algorithm in UNDER_TEST:
        model = make_model()
        plain = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = hvd.DistributedOptimizer(plain, model.named_parameters(), algorithm=algorithm)
        for epoch in range(2):
            for step in range(2 + hvd.rank()):
                optimizer.zero_grad()
                loss_of(model, make_batch(100 * epoch + 10 * step + hvd.rank())).backward()
                optimizer.step()
            last = hvd.join()
            assert hvd.allgather_object(last) == [last] * hvd.size()
            hvd.broadcast_parameters(model.state_dict(), root_rank=last)
            everybody = hvd.allgather(flat(model).unsqueeze(0))
            assert all(torch.equal(everybody[0], other) for other in everybody), algorithm


def check_what_joined_ranks_cannot_take_part_in_fails_everywhere() -> None:
    if hvd.size() == 1:
        return
    if hvd.rank():
        hvd.join()
    else:
        for operation in (
            lambda: hvd.allgather(ours(2)),
            lambda: hvd.broadcast(ours(2), 0),
            lambda: hvd.alltoall(ours(6)),
        ):
            with pytest.raises(hvd.HorovodInternalError, match="join"):
                operation()
        hvd.join()
    same(hvd.allreduce(ours(3), op=hvd.Sum), everybodys(3).sum(0))


if __name__ == "__main__":
    run_checks(globals())
