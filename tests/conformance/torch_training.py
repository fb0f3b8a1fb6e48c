"""A small regression, and what one process would make of all ranks' batches together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.conformance.torch_framework import TorchFramework
from tests.torch_device import normal

FEATURES, BATCH, RATE = 4, 5, 0.1


def make_model(seed: int = 3) -> nn.Sequential:
    """The same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(FEATURES, 3), nn.Tanh(), nn.Linear(3, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(normal(*parameter.shape, source=generator))
    return model


def batch(rank: int, step: int = 0) -> torch.Tensor:
    """Inputs of a rank at a step."""
    return normal(BATCH, FEATURES, source=100 * rank + step)


def loss_of(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The mean over the batch, so that the mean over ranks is that over the concatenated batch."""
    loss: torch.Tensor = (model(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean()
    return loss


def wrap(f: TorchFramework, model: nn.Module, rate: float = RATE, **options: Any) -> Any:
    """Gradient descent, distributed."""
    plain = torch.optim.SGD(model.parameters(), lr=rate)
    return f.hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters(), **options)


def alone(
    f: TorchFramework,
    steps: int,
    ranks: list[int] | None = None,
    change: Callable[[nn.Module], object] | None = None,
    passes: int = 1,
) -> nn.Module:
    """The model after steps of one process on the batches of all ranks (or of some), concatenated.

    Args:
        change: what is done to the gradients before each step.
        passes: backward passes of a step, whose gradients add up.
    """
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for step in range(steps):
        optimizer.zero_grad()
        for i in range(passes):
            inputs = torch.cat([batch(rank, passes * step + i) for rank in ranks or range(f.hvd.size())])
            loss_of(model, inputs).backward()
        if change is not None:
            change(model)
        optimizer.step()
    return model


def assert_alike(model: nn.Module, other: nn.Module, tolerance: float = 1e-5) -> None:
    """Asserts equal parameters."""
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
