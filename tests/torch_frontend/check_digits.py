"""Trains real data, scikit-learn's digits, with every algorithm; run by test_digits.py."""

from __future__ import annotations

import time

import hvd_gossip.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from hvd_gossip import runtime
from tests.ranks import UNDER_TEST
from tests.torch_device import DEVICE
from tests.torch_frontend.ranks import run_checks

EPOCHS, TEST_IMAGES = 12, 360
STEPS_AN_EXCHANGE = 4
PATIENCE = 8.0
"""Seconds for which all of a worker's steps together wait for its exchanges: peers may have finished, or rest."""


def load() -> tuple[TensorDataset, TensorDataset]:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32)[order], torch.tensor(digits.target)[order]
    train, test = slice(TEST_IMAGES, None), slice(TEST_IMAGES)
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(data.tensors[0].to(DEVICE)).argmax(1).cpu() == data.tensors[1]).float().mean())


def keep_exchanging(steps: int, before: int, patience: float) -> float:
    """Waits until a worker has exchanged once every few of its steps; returns what is left of the patience, seconds.

    On a busy machine an asynchronous worker may compute much faster than its engine gets to run, and train alone.
    """
    counters = runtime.current().counters
    limit = time.monotonic() + patience
    while counters.exchanges - before < steps // STEPS_AN_EXCHANGE and time.monotonic() < limit:
        time.sleep(1e-3)
    return max(0.0, limit - time.monotonic())


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: TensorDataset, alone: bool) -> None:
    sampler = DistributedSampler(data, num_replicas=hvd.size(), rank=hvd.rank(), seed=1)
    loader = DataLoader(data, batch_size=32, sampler=sampler)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    model.train()
    steps, before, patience = 0, runtime.current().counters.exchanges, PATIENCE
    for epoch in range(EPOCHS):
        hvd.barrier()  # or one that is late finds nobody to exchange with
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images.to(DEVICE)), labels.to(DEVICE)).backward()
            optimizer.step()
            steps += 1
            if not alone:
                patience = keep_exchanging(steps, before, patience)
        scheduler.step()


def check_every_algorithm_learns_the_digits() -> None:
    train_set, test_set = load()
    for algorithm, kind in UNDER_TEST.items():
        torch.manual_seed(10 + hvd.rank())
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Linear(64, 10)).to(DEVICE)
        momentum = 0.9 if kind.is_wrapped_alone else 0.0  # else the momentum is the algorithm's
        plain = torch.optim.SGD(model.parameters(), lr=0.02 * hvd.size(), momentum=momentum)
        optimizer = hvd.DistributedOptimizer(plain, model.named_parameters(), algorithm=algorithm)
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        hvd.broadcast_optimizer_state(optimizer, root_rank=0)
        train(model, optimizer, train_set, alone=hvd.size() == 1 or kind.synchronous)
        with hvd.consensus(model):
            averaged = accuracy(model, test_set)
        own = accuracy(model, test_set)
        assert averaged > 0.92, (algorithm, averaged)
        # How near the others one worker of an asynchronous algorithm ends depends on whom it met last.
        assert own > (0.9 if kind.synchronous else 0.8), (algorithm, own)


if __name__ == "__main__":
    run_checks(globals(), default_device=False)
