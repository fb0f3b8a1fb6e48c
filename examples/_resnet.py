"""Residual networks of bottleneck blocks (He et al., "Deep residual learning for image recognition", CVPR 2016, table 1)."""

from __future__ import annotations

import torch
from torch import nn

BLOCKS = {50: (3, 4, 6, 3), 26: (2, 2, 2, 2), 14: (1, 1, 1, 1)}
"""By depth, the number of blocks at each of the four resolutions; 50 is the paper's."""


class Bottleneck(nn.Module):
    """x + convolutions(x), of 1 x 1, 3 x 3 and 1 x 1; the channels are four times the inner width."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolutions(images) + self.shortcut(images))


class ResNet(nn.Sequential):
    """(n, channels, h, w) -> (n, classes).

    Args:
        depth: a key of BLOCKS.
        width: of the first blocks; the paper's is 64.
        small: for images below 64 pixels: does not shrink them before the first block.
    """

    def __init__(self, depth: int = 50, classes: int = 1000, channels: int = 3, width: int = 64, small: bool = False):
        stem: list[nn.Module] = [
            nn.Conv2d(channels, width, 3 if small else 7, 1 if small else 2, padding=1 if small else 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        if not small:
            stem.append(nn.MaxPool2d(3, 2, padding=1))
        blocks, inputs = [], width
        for stage, count in enumerate(BLOCKS[depth]):
            for number in range(count):
                blocks.append(Bottleneck(inputs, width << stage, 2 if number == 0 and stage else 1))
                inputs = 4 * (width << stage)
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
