"""The device that tensors of checks in real ranks are on: the CPU, or what HVD_TEST_DEVICE says, such as "cuda".

Whatever the device, random numbers are drawn on the CPU, so that they are the same.
"""

from __future__ import annotations

import os

import torch

DEVICE = torch.device(os.environ.get("HVD_TEST_DEVICE", "cpu"))


def use(default: bool = True) -> None:
    """In a rank: PyTorch makes tensors and modules there from now on, unless told otherwise. Ranks may share a GPU.

    Args:
        default: False for what draws its samples: PyTorch's own samplers want the CPU to be the default.
    """
    if DEVICE.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", 0)) % torch.cuda.device_count())
        torch.set_default_device(DEVICE if default else None)


def normal(*shape: int, source: torch.Generator | int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers from a generator on the CPU, or from a new one with this seed."""
    generator = torch.Generator().manual_seed(source) if isinstance(source, int) else source
    return torch.randn(shape, dtype=dtype, generator=generator, device="cpu").to(DEVICE)
