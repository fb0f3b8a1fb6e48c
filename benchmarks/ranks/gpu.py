"""Blocks of steps on a GPU with the plain optimizer and with each algorithm in turn, in real compute."""

from __future__ import annotations

import gc
import time
from typing import Any

import hvd_gossip.torch as hvd
import torch
from torch import nn

from benchmarks.job import Meeting, serve
from benchmarks.options import GpuOptions
from benchmarks.ranks.overhead import take_turns
from hvd_gossip import runtime

Record = dict[str, Any]
WIDTH = 2048


def measure(options: GpuOptions, meeting: Meeting) -> list[Record]:
    """What this rank saw: for every repetition and algorithm, a block with the plain optimizer and one with it."""
    hvd.init()
    torch.cuda.set_device(hvd.local_rank() % torch.cuda.device_count())
    try:
        return take_turns(
            options.algorithms,
            options.repetitions,
            lambda algorithm: measure_block(options, meeting, algorithm),
            device=torch.cuda.get_device_name(),
        )
    finally:
        hvd.shutdown()


def measure_block(options: GpuOptions, meeting: Meeting, algorithm: str | None) -> Record:
    """Seconds a step, of all steps together, and of them those in which the training thread waited for communication."""
    layers = max(1, round(options.megabytes * 1e6 / 4 / WIDTH**2))
    parts = [part for _ in range(layers) for part in (nn.Linear(WIDTH, WIDTH, bias=False), nn.ReLU())]
    model = nn.Sequential(*parts).cuda()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    if algorithm is not None:
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        optimizer = hvd.DistributedOptimizer(optimizer, model.named_parameters(), algorithm=algorithm)
    inputs = torch.randn(options.batch, WIDTH, device="cuda")
    record = _timed(options, meeting, model, optimizer, inputs)
    del optimizer
    gc.collect()  # so that a distributed one departs now, and disturbs nobody later
    meeting.all_here("block is over", options.ranks)
    return record


def _step(model: nn.Module, optimizer: Any, inputs: torch.Tensor) -> None:
    optimizer.zero_grad()
    (model(inputs) - inputs).square().mean().backward()
    optimizer.step()


def _timed(options: GpuOptions, meeting: Meeting, model: nn.Module, optimizer: Any, inputs: torch.Tensor) -> Record:
    for _ in range(options.warm_up):
        _step(model, optimizer, inputs)
    torch.cuda.synchronize()
    meeting.all_here("block", options.ranks)
    engine = runtime.current().engine
    start, waited, exchanges = time.monotonic(), engine.waited, runtime.current().counters.exchanges
    for _ in range(options.steps):
        _step(model, optimizer, inputs)
    torch.cuda.synchronize()
    seconds = time.monotonic() - start
    return {
        "step_seconds": seconds / options.steps,
        "waited_share": (engine.waited - waited) / seconds,
        "exchanges": (runtime.current().counters.exchanges - exchanges) / options.steps,
    }


if __name__ == "__main__":
    serve(GpuOptions, measure)
