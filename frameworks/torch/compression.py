"""`Compression`: what gradients are turned into on their way through an allreduce (Horovod's interface)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch


class Compressor:
    """Interface of a compressor; a script may pass its own.

    A class, not an instance, is passed around: both methods are static or class methods.
    """

    @classmethod
    def compress(cls, tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The tensor to send, and the context that `decompress` needs."""
        raise NotImplementedError

    @classmethod
    def decompress(cls, tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        """What `compress` got, from what it gave."""
        raise NotImplementedError


class NoneCompressor(Compressor):
    """Sends tensors as they are."""

    @classmethod
    def compress(cls, tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return tensor, None

    @classmethod
    def decompress(cls, tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        return tensor


class CastCompressor(Compressor):
    """Sends floating tensors that are wider than `dtype` as `dtype`."""

    dtype: ClassVar[torch.dtype]

    @classmethod
    def compress(cls, tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        if not tensor.is_floating_point() or tensor.element_size() <= cls.dtype.itemsize:
            return tensor, None
        return tensor.to(cls.dtype), tensor.dtype

    @classmethod
    def decompress(cls, tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        return tensor if ctx is None else tensor.to(ctx)


class FP16Compressor(CastCompressor):
    """Sends floating tensors as float16."""

    dtype = torch.float16


class BF16Compressor(CastCompressor):
    """Sends floating tensors as bfloat16 (an addition to Horovod's choices)."""

    dtype = torch.bfloat16


class Compression:
    """Optional gradient compression during allreduce."""

    none = NoneCompressor
    fp16 = FP16Compressor
    bf16 = BF16Compressor
