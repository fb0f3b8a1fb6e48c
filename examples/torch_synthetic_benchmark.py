"""Images a second of a ResNet on random pictures, as Horovod's users measure their clusters.

hvd-gossip-run -np 2 python examples/torch_synthetic_benchmark.py --depth 14 --width 8 --image-size 32
hvd-gossip-run -np 16 --algorithm sgp python examples/torch_synthetic_benchmark.py
"""

from __future__ import annotations

import argparse
import timeit
from typing import Any

import horovod.torch as hvd
import numpy as np
import torch
from _resnet import BLOCKS, ResNet
from torch import nn


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fp16-allreduce", action="store_true", help="halve what gradients take on their way")
    parser.add_argument("--use-adasum", action="store_true", help="combine updates by Adasum")
    parser.add_argument("--depth", type=int, default=50, choices=sorted(BLOCKS))
    parser.add_argument("--width", type=int, default=64, help="channels of the first blocks")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="images a step and worker")
    parser.add_argument("--num-warmup-batches", type=int, default=10)
    parser.add_argument("--num-batches-per-iter", type=int, default=10)
    parser.add_argument("--num-iters", type=int, default=10)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    hvd.init()
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(hvd.local_rank() % torch.cuda.device_count())  # they share, if there are fewer
    device = torch.device("cuda" if cuda else "cpu")
    model = ResNet(args.depth, width=args.width, small=args.image_size < 64).to(device)
    scale = 1 if args.use_adasum else hvd.size()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.01 * scale)
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=hvd.Compression.fp16 if args.fp16_allreduce else hvd.Compression.none,
        op=hvd.Adasum if args.use_adasum else hvd.Average,
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size, device=device)
    labels = torch.randint(1000, (args.batch_size,), device=device)

    def train_batch() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()

    def log(text: str) -> None:
        if hvd.rank() == 0:
            print(text, flush=True)

    log(f"ResNet-{args.depth}, {args.batch_size} images a batch, {hvd.size()} workers on {device.type}")
    timeit.timeit(train_batch, number=args.num_warmup_batches)
    speeds = []
    for number in range(args.num_iters):
        seconds = timeit.timeit(train_batch, number=args.num_batches_per_iter)
        speeds.append(args.batch_size * args.num_batches_per_iter / seconds)
        log(f"iteration {number}: {speeds[-1]:.1f} images a second and worker")
    mean, spread = np.mean(speeds), 1.96 * np.std(speeds)
    log(f"images a second and worker: {mean:.1f} +- {spread:.1f}")
    log(f"images a second, {hvd.size()} workers: {hvd.size() * mean:.1f} +- {hvd.size() * spread:.1f}")
    hvd.shutdown()


if __name__ == "__main__":
    main()
