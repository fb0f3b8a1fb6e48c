"""Batch normalization over the batches of all workers (Horovod's `hvd.SyncBatchNorm`).

Each worker sends, in one message, how many values a channel has, their mean and the sum of their squared distances from it. All
merge these pairwise exactly (Chan, Golub, LeVeque: "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
1979), which is stable where E[x^2] - E[x]^2 is not. One allgather forward, one allreduce backward.

With n values in all, m and v their mean and variance, and x' = (x - m) / sqrt(v + eps), the gradient of the input is

    dx = w / sqrt(v + eps) * (dy - mean(dy) - x' * mean(dy * x')),

means over all workers' values (Ioffe and Szegedy, "Batch Normalization", ICML 2015, section 3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hvd_gossip.basics import ProcessSet, global_process_set
from hvd_gossip.collectives import Sum

from .gather_ops import allgather
from .reduce_ops import allreduce_

Tensor = torch.Tensor


class SyncBatchNorm(_BatchNorm):
    """Takes the place of BatchNorm1d, 2d and 3d: in training, equal to it over the concatenated batches of all workers.

    The gradients of weight and bias are this worker's own, to be averaged by `DistributedOptimizer`. In evaluation nothing
    is communicated, so any worker may evaluate alone. In training all workers call their layers in the same order.

    Args:
        num_features: channels C of inputs of shape (N, C), or (N, C, ...); N may differ between workers, and be 0.
        eps: added to the variance.
        momentum: weight of a batch in the running mean and variance; None averages all batches alike.
        affine: learn a weight and a bias for each channel.
        track_running_stats: keep running mean and variance for evaluation; without them it uses each batch's own.
        device, dtype: of the parameters; float32 ones go with inputs of float16 and bfloat16 too.
        process_set: the workers whose batches belong together.

    Raises:
        ValueError: an input of less than 2 dimensions, not floating or of other than C channels; or, on all workers, if
            there is one value per channel in all.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        process_set: ProcessSet = global_process_set,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.process_set = process_set

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training or self.process_set.size() == 1:
            return super().forward(input)
        name = f"sync_batch_norm.{self.num_features}"
        output, mean, variance, count = _Normalize.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, name, self.process_set
        )
        if self.track_running_stats:
            self._track(mean, variance * (count / (count - 1)))
        normalized: Tensor = output
        return normalized

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.mul_(1 - share).add_(new.to(running.dtype), alpha=share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")
        if not input.is_floating_point():
            raise ValueError(f"expected floating input, not {input.dtype}")
        if input.size(1) != self.num_features:
            raise ValueError(f"expected input of {self.num_features} channels, not of shape {tuple(input.shape)}")


class _Moments(NamedTuple):
    """Of all values of each channel: how many, mean and mean squared distance from it, float64."""

    number: float
    mean: Tensor
    variance: Tensor


class _Normalize(torch.autograd.Function):
    """(x - m) / sqrt(v + eps) * weight + bias; gives m, v and the number of values too, which have no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, name: str, process_set: ProcessSet
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        wide = x.to(wide_dtype(x.dtype))
        count, mean, variance = moments_of_all(wide, name, process_set)
        if count <= 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {x.size()} and no more elsewhere"
            )
        narrow_mean, narrow_variance = mean.to(wide.dtype), variance.to(wide.dtype)
        ctx.save_for_backward(x, weight, narrow_mean, (variance + eps).rsqrt().to(wide.dtype))
        ctx.count, ctx.name, ctx.process_set = count, name, process_set
        ctx.mark_non_differentiable(mean, variance)
        scale, shift = (None if one is None else one.to(wide.dtype) for one in (weight, bias))
        output = (
            functional.batch_norm(wide, narrow_mean, narrow_variance, scale, shift, eps=eps)
            if x.numel()
            else wide.clone()
        )
        return output.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd = ctx.saved_tensors
        shape, dims = channels_of(x)
        wide = dy.to(mean.dtype)
        centred = x.to(mean.dtype) - mean.view(shape)
        sums = torch.stack([wide.sum(dims), (wide * centred).sum(dims) * invstd]).to(torch.float64)
        own = sums.clone()
        dx = None
        if ctx.needs_input_grad[0]:
            allreduce_(sums, op=Sum, name=f"{ctx.name}.grad", process_set=ctx.process_set)
            mean_dy, mean_dy_x = (sums / ctx.count).to(mean.dtype)
            scale = invstd if weight is None else invstd * weight.to(invstd.dtype)
            dx = wide - mean_dy.view(shape)
            dx.sub_(centred.mul_((mean_dy_x * invstd).view(shape))).mul_(scale.view(shape))
            dx = dx.to(x.dtype)
        dweight, dbias = (None, None) if weight is None else (own[1].to(weight.dtype), own[0].to(weight.dtype))
        return dx, dweight, dbias, None, None, None


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What statistics of such values are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def channels_of(x: Tensor) -> tuple[list[int], list[int]]:
    """The shape in which a value a channel meets x, and x's other dimensions."""
    return [1, -1] + [1] * (x.dim() - 2), [0, *range(2, x.dim())]


def moments_of_all(x: Tensor, name: str, process_set: ProcessSet) -> _Moments:
    """All workers' moments, the same to the last bit everywhere. A collective.

    Args:
        x: this worker's values, (N, C, ...), floating.
        name: of the allgather.
        process_set: whose values belong together.
    """
    features = x.size(1)
    count = x.numel() // features if features else 0
    mine = x.new_zeros(1, 1 + 2 * features, dtype=torch.float64)
    if count:
        # BatchNorm's own kernel, 5 x var_mean's speed
        mean, variance = torch.batch_norm_update_stats(x.to(wide_dtype(x.dtype)), None, None, 0.0)
        mine[0, 0] = count
        mine[0, 1 : features + 1] = mean
        mine[0, features + 1 :] = variance.to(torch.float64) * count
    everybody = allgather(mine, name=name, process_set=process_set)
    counts, means, squares = everybody.split([1, features, features], dim=1)
    total = counts.sum().clamp(min=1)
    mean = (counts * means).sum(0) / total
    square = (squares + counts * (means - mean) ** 2).sum(0)
    return _Moments(float(counts.sum()), mean, square / total)
