"""Checks of `Compression`."""

from __future__ import annotations

import hvd_gossip.tensorflow as hvd
import pytest
import tensorflow as tf
from hvd_gossip.tensorflow.compression import Compressor

from tests.tensorflow_frontend.tensors import same


def check_wide_floats_are_cast_and_come_back() -> None:
    for compression, sent in ((hvd.Compression.fp16, tf.float16), (hvd.Compression.bf16, tf.bfloat16)):
        for dtype in (tf.float32, tf.float64):
            compressed, context = compression.compress(tf.constant([1.5, 2.0], dtype))
            assert compressed.dtype == sent
            same(compression.decompress(compressed, context), [1.5, 2.0], dtype=dtype)


def check_everything_else_is_left_alone() -> None:
    for tensor in (tf.constant([1, 2]), tf.constant([1.0], tf.float16), tf.constant([True])):
        for compression in (hvd.Compression.none, hvd.Compression.fp16):
            compressed, context = compression.compress(tensor)
            assert compressed is tensor
            assert compression.decompress(compressed, context) is tensor


def check_a_compressor_of_ones_own() -> None:
    class Halving(Compressor):
        @classmethod
        def compress(cls, tensor: object) -> tuple[object, object]:
            return tensor / 2, 2.0

        @classmethod
        def decompress(cls, tensor: object, ctx: object) -> object:
            return tensor * ctx

    same(hvd.allreduce(tf.constant([3.0]), op=hvd.Max, compression=Halving), [3.0])
    with pytest.raises(NotImplementedError):
        Compressor.compress(tf.constant(1.0))
    with pytest.raises(NotImplementedError):
        Compressor.decompress(tf.constant(1.0), None)
