"""A ResNet as it is trained on ImageNet with Horovod: warm-up, a stepped learning rate, checkpoints, averaged metrics.

    hvd-gossip-run -np 2 python examples/torch_imagenet_resnet50.py --depth 14 --width 8 --epochs 3
    hvd-gossip-run -np 2 python examples/torch_imagenet_resnet50.py --depth 14 --width 8 --epochs 6   # goes on at epoch 4
    hvd-gossip-run -np 64 -H ... python examples/torch_imagenet_resnet50.py --train-dir DIR --val-dir DIR --epochs 90

`--train-dir` and `--val-dir` hold a folder of pictures a class (needs Pillow); without them it trains on digits that come with
scikit-learn. The schedule is that of Goyal et al., "Accurate, large minibatch SGD" (2017).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import torch
from _images import load_images
from _resnet import BLOCKS, ResNet
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-dir", type=Path, help="a folder of pictures a class")
    parser.add_argument("--val-dir", type=Path, help="the same, to validate with")
    parser.add_argument("--checkpoint-format", default="./checkpoint-{epoch}.pth.tar")
    parser.add_argument("--fp16-allreduce", action="store_true", help="halve what gradients take on their way")
    parser.add_argument("--use-adasum", action="store_true", help="combine updates by Adasum")
    parser.add_argument("--batches-per-allreduce", type=int, default=1, help="batches whose gradients make one step")
    parser.add_argument("--depth", type=int, default=50, choices=sorted(BLOCKS))
    parser.add_argument("--width", type=int, default=64, help="channels of the first blocks")
    parser.add_argument("--batch-size", type=int, default=32, help="images a batch and worker")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--base-lr", type=float, default=0.0125, help="learning rate of one worker")
    parser.add_argument("--warmup-epochs", type=float, default=5)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--wd", type=float, default=5e-5, help="weight decay")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures in one folder a class, cut to their middle square of `size` pixels."""

    def __init__(self, folder: Path, size: int = 224) -> None:
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self._size = size
        self._files = [
            (path, number) for number, name in enumerate(self.classes) for path in sorted((folder / name).iterdir())
        ]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image, ImageOps

        path, label = self._files[index]
        with Image.open(path) as picture:
            fitted = ImageOps.fit(picture.convert("RGB"), (self._size, self._size))
        return torch.tensor(np.asarray(fitted)).permute(2, 0, 1) / 255, label


class Metric:
    """A running mean over this worker's batches, averaged over the workers when asked for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sum, self._count = torch.zeros(()), 0

    def update(self, value: torch.Tensor) -> None:
        self._sum += value.detach().cpu()
        self._count += 1

    def average(self) -> float:
        return float(hvd.allreduce(self._sum / max(self._count, 1), name=self._name))


def learning_rate(epoch: float, args: argparse.Namespace) -> float:
    """Grows from one worker's to all workers' during the warm-up; a tenth of it from epoch 30, 60 and 80 on."""
    workers = 1 if args.use_adasum else hvd.size()
    scale = args.batches_per_allreduce * workers
    if epoch < args.warmup_epochs:
        factor = (epoch * (workers - 1) / args.warmup_epochs + 1) / workers
    else:
        factor = 0.1 ** sum(epoch >= bound for bound in (30, 60, 80))
    return float(args.base_lr * scale * factor)


def train_epoch(
    epoch: int, model: nn.Module, optimizer: Any, loader: DataLoader[Any], args: argparse.Namespace
) -> None:
    model.train()
    loss_metric, accuracy_metric = Metric("train loss"), Metric("train accuracy")
    passes = args.batches_per_allreduce
    for step, (images, labels) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch + step / len(loader), args)
        optimizer.zero_grad()
        for part, wanted in zip(
            images.to(args.device).chunk(passes), labels.to(args.device).chunk(passes), strict=True
        ):
            output = model(part)
            loss = nn.functional.cross_entropy(output, wanted)
            loss_metric.update(loss)
            accuracy_metric.update((output.argmax(dim=1) == wanted).float().mean())
            (loss / passes).backward()
        optimizer.step()
    report(f"epoch {epoch + 1}: training", loss_metric, accuracy_metric)


def validate(epoch: int, model: nn.Module, loader: DataLoader[Any], args: argparse.Namespace) -> None:
    model.eval()
    loss_metric, accuracy_metric = Metric("val loss"), Metric("val accuracy")
    with torch.no_grad():
        for images, labels in loader:
            output, wanted = model(images.to(args.device)), labels.to(args.device)
            loss_metric.update(nn.functional.cross_entropy(output, wanted))
            accuracy_metric.update((output.argmax(dim=1) == wanted).float().mean())
    report(f"epoch {epoch + 1}: validation", loss_metric, accuracy_metric)


def report(what: str, loss: Metric, accuracy: Metric) -> None:
    mean_loss, mean_accuracy = loss.average(), accuracy.average()
    if hvd.rank() == 0:
        print(f"{what} loss {mean_loss:.4f}, accuracy {mean_accuracy:.4f}", flush=True)


def save_checkpoint(epoch: int, model: nn.Module, optimizer: Any, args: argparse.Namespace) -> None:
    if hvd.rank() == 0:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, args.checkpoint_format.format(epoch=epoch + 1))


def resume(model: nn.Module, optimizer: Any, args: argparse.Namespace) -> int:
    """Loads the newest checkpoint on worker 0; every worker learns which epoch comes next."""
    epochs = (epoch for epoch in range(args.epochs, 0, -1) if Path(args.checkpoint_format.format(epoch=epoch)).exists())
    # Worker 0 may be the only one that sees the files.
    done = hvd.broadcast(torch.tensor(next(epochs, 0)), root_rank=0, name="resume_from_epoch").item()
    if done and hvd.rank() == 0:
        checkpoint = torch.load(args.checkpoint_format.format(epoch=done), map_location=args.device)
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    return int(done)


def main() -> None:
    args = parse_arguments()
    hvd.init()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(hvd.local_rank() % torch.cuda.device_count())  # they share, if there are fewer
    args.device = torch.device("cuda" if cuda else "cpu")

    train_set: Any
    val_set: Any
    if args.train_dir is None:
        train_set, val_set = load_images(None)
        model: nn.Module = ResNet(args.depth, classes=10, channels=1, width=args.width, small=True)
    else:
        train_set, val_set = Pictures(args.train_dir), Pictures(args.val_dir or args.train_dir)
        model = ResNet(args.depth, classes=len(train_set.classes), width=args.width)
    model.to(args.device)
    train_sampler: DistributedSampler[Any] = DistributedSampler(train_set, num_replicas=hvd.size(), rank=hvd.rank())
    val_sampler: DistributedSampler[Any] = DistributedSampler(val_set, num_replicas=hvd.size(), rank=hvd.rank())
    batch = args.batch_size * args.batches_per_allreduce
    train_loader = DataLoader(train_set, batch, sampler=train_sampler, drop_last=True)
    val_loader = DataLoader(val_set, args.batch_size, sampler=val_sampler)

    optimizer: Any = torch.optim.SGD(
        model.parameters(), lr=learning_rate(0, args), momentum=args.momentum, weight_decay=args.wd
    )
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none,
        backward_passes_per_step=args.batches_per_allreduce,
        op=hvd.Adasum if args.use_adasum else hvd.Average,
    )
    for epoch in range(resume(model, optimizer, args), args.epochs):
        train_sampler.set_epoch(epoch)
        train_epoch(epoch, model, optimizer, train_loader, args)
        validate(epoch, model, val_loader, args)
        save_checkpoint(epoch, model, optimizer, args)
    hvd.shutdown()


if __name__ == "__main__":
    main()
