"""MNIST with PyTorch and Horovod: an ordinary script, with what Horovod's users put into theirs.

    hvd-gossip-run -np 2 python examples/torch_mnist.py
    hvd-gossip-run -np 2 python examples/torch_mnist.py --fp16-allreduce --gradient-predivide-factor 2
    hvd-gossip-run -np 2 python examples/torch_mnist.py --use-adasum
    hvd-gossip-run -np 4 --algorithm adpsgd python examples/torch_mnist.py --use-mixed-precision

Without `--data-dir` it trains on the digits that come with scikit-learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from _images import load_images
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's four files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--test-batch-size", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of one worker")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--log-interval", type=int, default=10, help="steps between two lines")
    parser.add_argument("--no-cuda", action="store_true", help="train on the CPU even where there is a GPU")
    parser.add_argument("--fp16-allreduce", action="store_true", help="halve what gradients take on their way")
    parser.add_argument("--use-mixed-precision", action="store_true", help="autocast, and scaled losses on a GPU")
    parser.add_argument("--use-adasum", action="store_true", help="combine updates by Adasum")
    parser.add_argument("--gradient-predivide-factor", type=float, default=1.0)
    return parser.parse_args()


class Net(nn.Module):
    """Two convolutions and two linear layers, for images of any size: (n, 1, h, w) -> (n, 10), logarithms."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.Dropout2d(0.1), nn.ReLU(), nn.AdaptiveMaxPool2d(4),
        )  # fmt: skip
        self.classes = nn.Sequential(nn.Flatten(), nn.Linear(512, 50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.log_softmax(self.classes(self.features(images)), dim=1)


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> Any:
    # Adasum keeps the length of a step as it is with one worker; otherwise more workers take longer steps.
    scale = 1 if args.use_adasum else hvd.size()
    if args.use_adasum and args.cuda and hvd.nccl_built():
        scale = hvd.local_size()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), args.lr * scale, momentum=args.momentum)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    return hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none,
        op=hvd.Adasum if args.use_adasum else hvd.Average,
        gradient_predivide_factor=args.gradient_predivide_factor,
    )


def train_epoch(
    epoch: int,
    model: nn.Module,
    optimizer: Any,
    loader: DataLoader[Any],
    args: argparse.Namespace,
    scaler: torch.amp.GradScaler | None,
) -> None:
    model.train()
    for step, (images, labels) in enumerate(loader):
        images, labels = images.to(args.device), labels.to(args.device)
        optimizer.zero_grad()
        with torch.autocast(args.device.type, dtype=args.half, enabled=args.use_mixed_precision):
            loss = nn.functional.nll_loss(model(images), labels)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            optimizer.synchronize()  # gradients are complete: they may be unscaled, and clipped
            scaler.unscale_(optimizer)
            with optimizer.skip_synchronize():
                scaler.step(optimizer)
            scaler.update()
        if step % args.log_interval == 0 and hvd.rank() == 0:
            print(f"epoch {epoch}, step {step}/{len(loader)}: loss {loss.item():.4f}")


def test(model: nn.Module, data: TensorDataset, args: argparse.Namespace) -> tuple[float, float]:
    """Loss and accuracy, averaged over the workers, each of which takes its part of the test set."""
    model.eval()
    sampler: DistributedSampler[Any] = DistributedSampler(data, hvd.size(), hvd.rank(), shuffle=False)
    loss, correct = torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        for images, labels in DataLoader(data, args.test_batch_size, sampler=sampler):
            output = model(images.to(args.device)).cpu()
            loss += nn.functional.nll_loss(output, labels, reduction="sum")
            correct += (output.argmax(dim=1) == labels).sum()
    loss, correct = loss / len(sampler), correct / len(sampler)
    return hvd.allreduce(loss, name="loss").item(), hvd.allreduce(correct, name="accuracy").item()


def main() -> None:
    args = parse_arguments()
    hvd.init()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    args.cuda = not args.no_cuda and torch.cuda.is_available()
    if args.cuda:
        torch.cuda.set_device(hvd.local_rank() % torch.cuda.device_count())  # they share, if there are fewer
    args.device = torch.device("cuda" if args.cuda else "cpu")
    args.half = torch.float16 if args.cuda else torch.bfloat16

    train_set, test_set = load_images(args.data_dir)
    sampler: DistributedSampler[Any] = DistributedSampler(train_set, num_replicas=hvd.size(), rank=hvd.rank())
    loader = DataLoader(train_set, args.batch_size, sampler=sampler)
    model = Net().to(args.device)
    optimizer = make_optimizer(model, args)
    scaler = torch.amp.GradScaler(args.device.type) if args.use_mixed_precision and args.cuda else None
    for epoch in range(1, args.epochs + 1):
        sampler.set_epoch(epoch)
        train_epoch(epoch, model, optimizer, loader, args, scaler)
        loss, accuracy = test(model, test_set, args)
        if hvd.rank() == 0:
            print(f"epoch {epoch}: test loss {loss:.4f}, test accuracy {accuracy:.4f}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
