"""`Compression`: what gradients are turned into on their way through an allreduce (Horovod's interface)."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf


class Compressor:
    """Interface of a compressor; a script may pass its own.

    A class, not an instance, is passed around: both methods are static or class methods.
    """

    @classmethod
    def compress(cls, tensor: Any) -> tuple[Any, Any]:
        """The tensor to send, and the context that `decompress` needs."""
        raise NotImplementedError

    @classmethod
    def decompress(cls, tensor: Any, ctx: Any) -> Any:
        """What `compress` got, from what it gave."""
        raise NotImplementedError


class NoneCompressor(Compressor):
    """Sends tensors as they are."""

    @classmethod
    def compress(cls, tensor: Any) -> tuple[Any, Any]:
        return tensor, None

    @classmethod
    def decompress(cls, tensor: Any, ctx: Any) -> Any:
        return tensor


class CastCompressor(Compressor):
    """Sends floating tensors that are wider than `dtype` as `dtype`."""

    dtype: ClassVar[Any]

    @classmethod
    def compress(cls, tensor: Any) -> tuple[Any, Any]:
        if not tensor.dtype.is_floating or tensor.dtype.size <= cls.dtype.size:
            return tensor, None
        return tf.cast(tensor, cls.dtype), tensor.dtype

    @classmethod
    def decompress(cls, tensor: Any, ctx: Any) -> Any:
        return tensor if ctx is None else tf.cast(tensor, ctx)


class FP16Compressor(CastCompressor):
    """Sends floating tensors as float16."""

    dtype = tf.float16


class BF16Compressor(CastCompressor):
    """Sends floating tensors as bfloat16 (an addition to Horovod's choices)."""

    dtype = tf.bfloat16


class Compression:
    """Optional gradient compression during allreduce."""

    none = NoneCompressor
    fp16 = FP16Compressor
    bf16 = BF16Compressor
