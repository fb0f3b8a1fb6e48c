"""Small models and data that tests of the PyTorch front end share."""

from __future__ import annotations

import torch
from torch import nn

from tests.torch_device import DEVICE, normal

FEATURES, CLASSES = 6, 3


def make_model(seed: int = 0) -> nn.Sequential:
    """Two layers, float32; the same on every rank for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(normal(*parameter.shape, source=generator) * 0.3)
    return model


def make_batch(seed: int, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (size, FEATURES) and labels (size,)."""
    generator = torch.Generator().manual_seed(1000 + seed)
    inputs = normal(size, FEATURES, source=generator)
    return inputs, torch.randint(CLASSES, (size,), generator=generator, device="cpu").to(DEVICE)


def loss_of(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Mean cross entropy."""
    loss: torch.Tensor = nn.functional.cross_entropy(model(batch[0]), batch[1])
    return loss


def flat(model: nn.Module) -> torch.Tensor:
    """All parameters in one float64 vector, a copy."""
    return torch.cat([p.detach().double().reshape(-1) for p in model.parameters()])
