"""Blocks of training steps whose gradients are averaged not at all, after the backward pass, and beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import hvd_gossip.torch as hvd
import torch

from benchmarks.job import Meeting, serve
from benchmarks.options import OverlapOptions


class SleepInBackward(torch.autograd.Function):
    """The identity, whose gradient takes so many seconds, as a layer's backward pass on a GPU does."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, seconds: float) -> torch.Tensor:
        ctx.seconds = seconds
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        time.sleep(ctx.seconds)
        return gradient, None


class SlowLayers(torch.nn.Module):
    """Layers of equally many parameters; the backward pass of each sleeps, and then its gradient is there."""

    def __init__(self, megabytes: float, layers: int, backward_seconds: float) -> None:
        super().__init__()
        length = round(megabytes * 1e6 / 4 / layers)
        self.weights = torch.nn.ParameterList(torch.zeros(length) for _ in range(layers))
        self._seconds = backward_seconds / layers

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            # The gradient of each weight is complete when the backward pass comes to this layer, last layers first.
            value = SleepInBackward.apply(value, self._seconds) + weight.sum() * 1e-6  # type: ignore[no-untyped-call]
        return value


def measure(options: OverlapOptions, meeting: Meeting) -> dict[str, list[float]]:
    """By way, the seconds of a step in each repetition."""
    hvd.init()
    try:
        ways = {name: make_step(options, name) for name in ("plain", "afterwards", "distributed")}
        results: dict[str, list[float]] = {name: [] for name in ways}
        for repetition in range(options.repetitions + 1):
            for name, step in ways.items():
                hvd.barrier()
                start = time.monotonic()
                for _ in range(options.steps):
                    step()
                if repetition:
                    results[name].append((time.monotonic() - start) / options.steps)
        return results
    finally:
        hvd.shutdown()


def make_step(options: OverlapOptions, way: str) -> Callable[[], None]:
    """One training step of a model of its own."""
    model = SlowLayers(options.megabytes, options.layers, options.backward_ms * 1e-3)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    if way == "distributed":
        optimizer = hvd.DistributedOptimizer(
            optimizer, named_parameters=model.named_parameters(), algorithm="allreduce"
        )
    parameters = list(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(1, requires_grad=True)).sum().backward()
        if way == "afterwards":
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            hvd.grouped_allreduce_(gradients, name="afterwards")
        optimizer.step()

    return step


if __name__ == "__main__":
    serve(OverlapOptions, measure)
