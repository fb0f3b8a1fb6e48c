"""Horovod, API, SyncBatchNorm: batch normalization over the batches of all ranks, against its formula in NumPy."""

from __future__ import annotations

import numpy as np

from tests.conformance.case import Array, Cases, close
from tests.conformance.framework import Framework, Normalized

CASES = Cases()
EPSILON = 1e-5
MOMENTUM = 0.3


def batch_norm(x: Array, upstream: Array) -> Normalized:
    """Ioffe and Szegedy, 2015, algorithm 1 and its derivatives; weight 1, bias 0, first running statistics 0 and 1."""
    axes = (0, *range(2, x.ndim))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    scale = 1 / np.sqrt(variance + EPSILON)
    hat = (x - mean) * scale
    gradient = scale * (
        upstream - upstream.mean(axes, keepdims=True) - hat * (upstream * hat).mean(axes, keepdims=True)
    )
    count = x.size // x.shape[1]
    running = 1 - MOMENTUM + MOMENTUM * variance.reshape(-1) * count / (count - 1)
    return Normalized(hat, gradient, MOMENTUM * mean.reshape(-1), running)


def _check(f: Framework, sizes: list[int], shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(7)
    total = sum(sizes)
    x = random.standard_normal((total, *shape)) * 2 + np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    upstream = random.standard_normal(x.shape)
    begin = sum(sizes[: f.hvd.rank()])
    mine = slice(begin, begin + sizes[f.hvd.rank()])
    wanted = batch_norm(x, upstream)
    got = f.normalize(x[mine], upstream[mine], MOMENTUM)
    close(got.output, wanted.output[mine], 1e-4)
    close(got.input_gradient, wanted.input_gradient[mine], 1e-4)
    close(got.mean, wanted.mean, 1e-4)
    close(got.variance, wanted.variance, 1e-4)


@CASES.add()
def sync_batch_norm_equals_batch_norm_over_the_concatenated_batch(f: Framework) -> None:
    """API, SyncBatchNorm: statistics over the batches of all workers; forward, backward and running statistics."""
    _check(f, [3] * f.hvd.size(), (4, 2, 5))


@CASES.add()
def sync_batch_norm_of_two_dimensions(f: Framework) -> None:
    """API, SyncBatchNorm: inputs (N, C)."""
    _check(f, [4] * f.hvd.size(), (3,))


@CASES.add()
def sync_batch_norm_of_uneven_batches(f: Framework) -> None:
    """API, SyncBatchNorm: each value counts once, however many a worker has."""
    _check(f, [2 + rank for rank in range(f.hvd.size())], (3, 4))
