"""Trains real data, scikit-learn's digits, with every algorithm; run by test_digits.py."""

from __future__ import annotations

import hvd_gossip.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from hvd_gossip.algorithms.registry import ALGORITHMS
from tests.torch_frontend.ranks import run_checks

EPOCHS, TEST_IMAGES = 12, 360


def load() -> tuple[TensorDataset, TensorDataset]:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32)[order], torch.tensor(digits.target)[order]
    train, test = slice(TEST_IMAGES, None), slice(TEST_IMAGES)
    return TensorDataset(images[train], labels[train]), TensorDataset(images[test], labels[test])


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean())


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: TensorDataset) -> None:
    sampler = DistributedSampler(data, num_replicas=hvd.size(), rank=hvd.rank(), seed=1)
    loader = DataLoader(data, batch_size=32, sampler=sampler)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    model.train()
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        scheduler.step()


def check_every_algorithm_learns_the_digits() -> None:
    train_set, test_set = load()
    for algorithm, kind in ALGORITHMS.items():
        torch.manual_seed(10 + hvd.rank())
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Linear(64, 10))
        plain = torch.optim.SGD(model.parameters(), lr=0.02 * hvd.size(), momentum=0.9)
        optimizer = hvd.DistributedOptimizer(plain, model.named_parameters(), algorithm=algorithm)
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        hvd.broadcast_optimizer_state(optimizer, root_rank=0)
        train(model, optimizer, train_set)
        with hvd.consensus(model):
            averaged = accuracy(model, test_set)
        own = accuracy(model, test_set)
        assert averaged > 0.92, (algorithm, averaged)
        # How near the others one worker of an asynchronous algorithm ends depends on timing.
        assert own > (0.9 if kind.synchronous else 0.6), (algorithm, own)


if __name__ == "__main__":
    run_checks(globals())
