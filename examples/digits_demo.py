"""Trains a small convolutional network on scikit-learn's digits: an ordinary Horovod script.

    hvd-gossip-run -np 4 --algorithm allreduce python examples/digits_demo.py
    hvd-gossip-run -np 4 --algorithm adpsgd python examples/digits_demo.py --share-work

The lines without a Horovod counterpart say so. `--log-dir` makes every worker write a JSON line a step.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, Sampler, TensorDataset

TEST_IMAGES = 357
"""Of the 1,797 images, those (after shuffling) that nobody trains on; 1,440 are left to train on."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=30, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.01, help="a worker; multiplied by the number of workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share-work", action="store_true", help="hand an epoch's images out as workers ask for them")
    parser.add_argument("--log-dir", type=Path, help="where every worker writes what it did")
    return parser.parse_args()


def load_data(seed: int) -> tuple[TensorDataset, TensorDataset]:
    """The training and the test set: images as float32 (n, 1, 8, 8) in [0, 1], labels as int64 (n,)."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[order] / 16
    labels = torch.tensor(digits.target)[order]
    return (
        TensorDataset(images[:-TEST_IMAGES], labels[:-TEST_IMAGES]),
        TensorDataset(images[-TEST_IMAGES:], labels[-TEST_IMAGES:]),
    )


def build_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(128 * 2 * 2, 10),
    )  # fmt: skip


def build_sampler(data: TensorDataset, args: argparse.Namespace) -> Any:
    if args.share_work:  # not in Horovod: fast workers take more of an epoch's images than slow ones
        return hvd.WorkSharingSampler(data, seed=args.seed, block=args.batch_size)
    return DistributedSampler(data, num_replicas=hvd.size(), rank=hvd.rank(), seed=args.seed)


class Log:
    """Writes one JSON line an event to `worker-<rank>.jsonl`, or nothing without a directory."""

    def __init__(self, directory: Path | None) -> None:
        self._file = None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / f"worker-{hvd.rank()}.jsonl").open("w", buffering=1)

    def write(self, event: str, **values: float) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"event": event, "time": time.time(), **values}) + "\n")


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any], log: Log) -> None:
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        log.write("step", samples=len(labels), loss=loss.item())


def test_accuracy(model: nn.Module, data: TensorDataset) -> float:
    model.eval()
    images, labels = data.tensors
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).float().mean())


def main() -> None:
    args = parse_arguments()
    hvd.init()
    torch.manual_seed(args.seed + hvd.rank())
    train_set, test_set = load_data(args.seed)
    model = build_model()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=args.lr * hvd.size(), momentum=0.9)

    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

    sampler: Sampler[int] = build_sampler(train_set, args)
    loader = DataLoader(train_set, batch_size=args.batch_size, sampler=sampler)
    log = Log(args.log_dir)
    log.write("start")
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        train_epoch(model, optimizer, loader, log)
    log.write("end")

    distance = hvd.consensus_distance(model)  # not in Horovod: how far the workers' parameters are from their mean
    with hvd.consensus(model):  # not in Horovod: inside, every worker has the exact mean of all workers' parameters
        accuracy = test_accuracy(model, test_set)
    log.write("result", accuracy=accuracy, consensus_distance=float(distance))
    if hvd.rank() == 0:
        print(f"test accuracy of the averaged model: {accuracy:.2%}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
