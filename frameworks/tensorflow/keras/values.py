"""Operations on values: tensors, or whatever TensorFlow makes tensors of (Horovod's functions for Keras)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvd_gossip.collectives import Average

from .. import gather_ops, reduce_ops
from ..compression import Compression, Compressor


def allreduce(
    value: Any,
    name: str | None = None,
    average: bool | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    op: int | None = None,
    compression: type[Compressor] = Compression.none,
) -> Any:
    """The reduction of a value over all ranks, as a tensor; see `hvd_gossip.tensorflow.allreduce`."""
    return reduce_ops.allreduce(
        tf.convert_to_tensor(value),
        average=average,
        compression=compression,
        op=op,
        prescale_factor=prescale_factor,
        postscale_factor=postscale_factor,
        name=name,
    )


def allgather(value: Any, name: str | None = None) -> Any:
    """All ranks' values, joined along the first dimension; see `hvd_gossip.tensorflow.allgather`."""
    return gather_ops.allgather(tf.convert_to_tensor(value), name=name)


def broadcast(value: Any, root_rank: int, name: str | None = None) -> Any:
    """The root's value, as a tensor; see `hvd_gossip.tensorflow.broadcast`."""
    return gather_ops.broadcast(tf.convert_to_tensor(value), root_rank, name=name)


def reducescatter(value: Any, name: str | None = None, op: int = Average) -> Any:
    """This rank's rows of the reduction of a value; see `hvd_gossip.tensorflow.reducescatter`."""
    return reduce_ops.reducescatter(tf.convert_to_tensor(value), op=op, name=name)
