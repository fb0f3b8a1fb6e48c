"""Scikit-learn's handwritten digits with PyTorch and Horovod: an ordinary script, without a word about gossip.

hvd-gossip-run -np 4 python examples/torch_digits.py
hvd-gossip-run -np 4 --algorithm adpsgd python examples/torch_digits.py
hvd-gossip-run -np 4 --algorithm sgp --topology exponential python examples/torch_digits.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import horovod.torch as hvd
import torch
from rich.progress import track
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

TEST_IMAGES = 360


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images")
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.02, help="learning rate for one worker")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--backward-passes", type=int, default=1, help="batches whose gradients make one step")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def load_data(seed: int) -> tuple[TensorDataset, TensorDataset]:
    """1,437 training and 360 test images: float32 of shape (64,) from 0 to 1, and labels from 0 to 9."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(digits.data / 16, dtype=torch.float32)[order]
    labels = torch.tensor(digits.target)[order]
    return (
        TensorDataset(images[TEST_IMAGES:], labels[TEST_IMAGES:]),
        TensorDataset(images[:TEST_IMAGES], labels[:TEST_IMAGES]),
    )


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[torch.Tensor, ...]]
) -> None:
    model.train()
    passes = optimizer.backward_passes_per_step  # type: ignore[attr-defined]
    for number, (images, labels) in enumerate(loader, start=1):
        loss = nn.functional.cross_entropy(model(images), labels) / passes
        loss.backward()
        if number % passes == 0 or number == len(loader):
            optimizer.step()
            optimizer.zero_grad()


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """The workers' mean accuracy."""
    model.eval()
    images, labels = data.tensors
    with torch.no_grad():
        correct = (model(images).argmax(dim=1) == labels).float().mean()
    return float(hvd.allreduce(correct, name="accuracy"))


def main() -> None:
    args = parse_arguments()
    hvd.init()
    torch.manual_seed(args.seed)
    train_set, test_set = load_data(args.seed)
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(
        train_set, num_replicas=hvd.size(), rank=hvd.rank(), seed=args.seed
    )
    loader = DataLoader(train_set, batch_size=args.batch_size, sampler=sampler)

    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.BatchNorm1d(96), nn.Linear(96, 10))
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        model.parameters(), lr=args.lr * hvd.size() * args.backward_passes, momentum=args.momentum
    )
    optimizer = hvd.DistributedOptimizer(
        optimizer, named_parameters=model.named_parameters(), backward_passes_per_step=args.backward_passes
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    epochs: Iterable[int] = range(args.epochs)
    for epoch in track(epochs, "training") if hvd.rank() == 0 else epochs:
        sampler.set_epoch(epoch)
        train_epoch(model, optimizer, loader)
        scheduler.step()

    result = accuracy(model, test_set)
    if hvd.rank() == 0:
        print(f"test accuracy: {result:.4f}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
