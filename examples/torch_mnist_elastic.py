"""Elastic MNIST with PyTorch and Horovod: state is committed, and training goes on from there after a failure.

    hvd-gossip-run -np 2 python examples/torch_mnist_elastic.py

A failed collective operation takes all workers back to their last commit. `--fail-at-step` shows it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from _images import load_images
from torch import nn
from torch.utils.data import DataLoader
from torch_mnist import Net


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's four files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of one worker")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--batches-per-commit", type=int, default=10)
    parser.add_argument("--fail-at-step", type=int, default=-1, help="the step at which a failure is played, once")
    return parser.parse_args()


class PlayedFailure:
    """Raises, once, what a failed collective operation raises; all workers play it at the same step."""

    def __init__(self, step: int) -> None:
        self._left = step

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            print(f"worker {hvd.rank()}: a failure, and back to the last commit")
            raise hvd.HorovodInternalError("a failure that --fail-at-step asked for")


def main() -> None:
    args = parse_arguments()
    hvd.init()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    train_set, test_set = load_images(args.data_dir)
    sampler = hvd.elastic.ElasticSampler(train_set)
    loader = DataLoader(train_set, args.batch_size, sampler=sampler)
    model = Net()
    optimizer: Any = torch.optim.SGD(model.parameters(), args.lr * hvd.size(), momentum=args.momentum)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    failure = PlayedFailure(args.fail_at_step)

    def on_reset() -> None:
        """The number of workers may have changed."""
        for group in optimizer.param_groups:
            group["lr"] = args.lr * hvd.size()

    @hvd.elastic.run  # type: ignore[untyped-decorator]  # mypy does not know horovod.torch
    def train(state: Any) -> None:
        while state.epoch <= args.epochs:
            model.train()
            for index, (images, labels) in enumerate(loader):
                optimizer.zero_grad()
                nn.functional.nll_loss(model(images), labels).backward()
                optimizer.step()
                failure.step()
                state.sampler.record_batch(index, args.batch_size)
                if (index + 1) % args.batches_per_commit == 0:
                    state.commit()
            if hvd.rank() == 0:
                print(f"epoch {state.epoch}: test accuracy {accuracy(model, test_set):.4f}")
            state.epoch += 1
            state.sampler.set_epoch(state.epoch)
            state.commit()

    state = hvd.elastic.TorchState(model, optimizer, epoch=1, sampler=sampler)
    state.register_reset_callbacks([on_reset])
    train(state)
    hvd.shutdown()


def accuracy(model: nn.Module, data: Any) -> float:
    model.eval()
    images, labels = data.tensors
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).float().mean())


if __name__ == "__main__":
    main()
