"""A user's training loop whose gradients cost almost nothing and whose compute is slept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.utils.data import TensorDataset

FEATURES, OUTPUTS = 64, 10
SLICE_SECONDS = 5e-3
"""How often a straggler looks whether its epoch is over."""
Batches = Iterable[list[torch.Tensor]]


class EpochOver(Exception):
    """All other workers have finished: the straggler's batch under way is given up, and counts as its own."""


class SleptCompute:
    """Emulated compute, in proportion to the batch.

    Args:
        seconds: of a full batch, on a worker of normal speed.
        batch: samples of a full batch.
        slowdown: of this worker.
        is_over: looked at while a slow worker computes; when true, EpochOver is raised. None: compute is never cut short.

    Attributes:
        samples: those whose compute was begun.
    """

    def __init__(
        self, seconds: float, batch: int, slowdown: float = 1.0, is_over: Callable[[], bool] | None = None
    ) -> None:
        self._seconds_a_sample = seconds * slowdown / batch
        self._is_over = is_over
        self.samples = 0

    def __call__(self, samples: int) -> None:
        self.samples += samples
        seconds = self._seconds_a_sample * samples
        if self._is_over is None:
            time.sleep(seconds)
            return
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            time.sleep(min(left, SLICE_SECONDS))
            if self._is_over():
                raise EpochOver


def make_model(megabytes: float) -> nn.Module:
    """A perceptron of about so many 10^6 bytes of float32 parameters, (n, 64) -> (n, 10)."""
    wanted = megabytes * 1e6 / 4
    hidden = max(1, round(((FEATURES + OUTPUTS + 2) ** 2 / 4 + wanted) ** 0.5 - (FEATURES + OUTPUTS + 2) / 2))
    return nn.Sequential(
        nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, OUTPUTS)
    )


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters."""
    return sum(parameter.nbytes for parameter in model.parameters())


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """The plain optimizer that every variant wraps."""
    return torch.optim.SGD(model.parameters(), lr=1e-3)


def make_data(samples: int) -> TensorDataset:
    """Features (samples, 64) and targets (samples, 10), the same on every rank."""
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(samples, FEATURES, generator=generator), torch.randn(samples, OUTPUTS, generator=generator)
    )


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches, compute: Callable[[int], None]
) -> Iterator[float]:
    """Trains batch by batch; yields the time (of `time.monotonic`) at the end of each step."""
    for features, targets in batches:
        compute(len(features))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(features), targets).backward()
        optimizer.step()
        yield time.monotonic()
