"""Horovod, API, horovod.torch.SyncBatchNorm: a module in the place of torch.nn.BatchNorm."""

from __future__ import annotations

import torch
from torch import nn

from tests.conformance.case import Cases, raises
from tests.conformance.torch_framework import TorchFramework
from tests.torch_device import normal

CASES = Cases()
CHANNELS = 3


def _inputs(f: TorchFramework, *shape: int) -> torch.Tensor:
    """All ranks' batches, concatenated."""
    return normal(2 * f.hvd.size(), CHANNELS, *shape, source=4) * 3 + 1


def _mine(f: TorchFramework, everybodys: torch.Tensor) -> torch.Tensor:
    return everybodys[2 * f.hvd.rank() :][:2]


@CASES.add()
def its_weights_are_trained_like_batch_norms(f: TorchFramework) -> None:
    """API, SyncBatchNorm: applies synchronous version of N-dimensional BatchNorm; weight and bias, several batches."""
    for shape, plain in (((4,), nn.BatchNorm1d), ((4, 2), nn.BatchNorm2d), ((2, 2, 2), nn.BatchNorm3d)):
        ours, whole = f.hvd.SyncBatchNorm(CHANNELS), plain(CHANNELS)
        for _ in range(2):
            inputs = _inputs(f, *shape)
            ours(_mine(f, inputs)).pow(3).sum().backward()
            whole(inputs).pow(3).sum().backward()
        for name in ("weight", "bias"):
            gradient = f.hvd.allreduce(getattr(ours, name).grad, op=f.hvd.Sum)
            torch.testing.assert_close(gradient, getattr(whole, name).grad, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(ours.running_mean, whole.running_mean)
        torch.testing.assert_close(ours.running_var, whole.running_var)
        assert int(ours.num_batches_tracked) == 2


@CASES.add()
def evaluation_uses_running_statistics_and_no_communication(f: TorchFramework) -> None:
    """API, SyncBatchNorm: an instance of BatchNorm; in evaluation on one rank alone."""
    layer = f.hvd.SyncBatchNorm(CHANNELS)
    layer(_mine(f, _inputs(f, 4)))
    layer.eval()
    plain = nn.BatchNorm1d(CHANNELS).eval()
    plain.load_state_dict(layer.state_dict())
    if f.hvd.rank() == 0:
        inputs = _inputs(f, 4)
        torch.testing.assert_close(layer(inputs), plain(inputs))
    f.hvd.barrier()


@CASES.add()
def its_options_are_those_of_batch_norm(f: TorchFramework) -> None:
    """API, SyncBatchNorm, arguments: num_features, eps, momentum, affine, track_running_stats."""
    layer = f.hvd.SyncBatchNorm(CHANNELS, eps=1e-3, momentum=None, affine=False, track_running_stats=True)
    plain = nn.BatchNorm1d(CHANNELS, eps=1e-3, momentum=None, affine=False, track_running_stats=True)
    inputs = _inputs(f, 4)
    for factor in (1.0, 2.0):
        torch.testing.assert_close(layer(_mine(f, inputs * factor)), _mine(f, plain(inputs * factor)))
    torch.testing.assert_close(layer.running_mean, plain.running_mean)
    assert layer.weight is None


@CASES.add()
def inputs_of_too_few_dimensions_are_refused(f: TorchFramework) -> None:
    """API, SyncBatchNorm: expected at least 2D input."""
    with raises(ValueError):
        f.hvd.SyncBatchNorm(CHANNELS)(torch.ones(CHANNELS))
