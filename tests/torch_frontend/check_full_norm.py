"""Checks of FullNorm in several ranks: moments averaged over a process set, statistics averaged by consensus."""

from __future__ import annotations

import hvd_gossip.torch as hvd
import torch
from torch import nn

from tests.torch_device import normal
from tests.torch_frontend.ranks import run_checks

C = 3
Tensor = torch.Tensor


def batch(rank: int, step: int) -> Tensor:
    """A rank's batch, of another size on every rank; float64."""
    return normal(2 + rank, C, 2, source=100 * step + rank, dtype=torch.float64) * (1 + rank) + step


def upstream(rank: int, step: int) -> Tensor:
    return batch(rank, 50 + step)


def check_a_process_set_has_the_moments_of_all_its_batches() -> None:
    ranks, mine = range(hvd.size()), hvd.rank()
    for tracked in (True, False):
        ours = hvd.FullNorm1d(C, dtype=torch.float64, track_gradients=tracked, process_set=hvd.global_process_set)
        whole = hvd.FullNorm1d(C, dtype=torch.float64, track_gradients=tracked)
        for step in range(4):
            all_x = torch.cat([batch(rank, step) for rank in ranks]).requires_grad_()
            x = batch(mine, step).requires_grad_()
            y, all_y = ours(x), whole(all_x)
            y.backward(upstream(mine, step))
            all_y.backward(torch.cat([upstream(rank, step) for rank in ranks]))
            lengths = [2 + rank for rank in ranks]
            torch.testing.assert_close(y, all_y.split(lengths)[mine])
            torch.testing.assert_close(x.grad, all_x.grad.split(lengths)[mine])
            torch.testing.assert_close(ours.running_mean, whole.running_mean)
            torch.testing.assert_close(ours.running_var, whole.running_var)


def check_alone_it_communicates_nothing() -> None:
    """Only one rank trains a step; with a message, it would wait for the others."""
    if hvd.rank() == 0:
        x = batch(0, 0).requires_grad_()
        hvd.FullNorm1d(C, dtype=torch.float64)(x).sum().backward()


def check_consensus_averages_the_estimates_of_gossiping_workers() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, C), nn.BatchNorm1d(C), nn.ReLU(), nn.Linear(C, 2))
    hvd.FullNorm1d.convert_full_norm(net)
    plain = torch.optim.SGD(net.parameters(), lr=0.05)
    optimizer = hvd.DistributedOptimizer(plain, net.named_parameters(), algorithm="dpsgd")
    x = torch.randn(2, 4) + hvd.rank()
    for _ in range(3):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    own = {name: value.clone() for name, value in net[1].named_buffers()}
    means = {name: hvd.allreduce(value.double(), name=name) for name, value in own.items() if value.is_floating_point()}
    assert {"running_mean", "running_var", "running_grad"} == set(means)
    with hvd.consensus(net):
        for name, mean in means.items():
            torch.testing.assert_close(getattr(net[1], name).double(), mean, rtol=1e-5, atol=1e-6)
    for name, value in net[1].named_buffers():
        assert torch.equal(value, own[name])


if __name__ == "__main__":
    run_checks(globals())
