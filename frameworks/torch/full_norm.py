"""Full Normalization layers (Lian and Liu, AISTATS 2019); (1) to (4) are equations of `hvd_gossip.full_normalization`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hvd_gossip.basics import ProcessSet
from hvd_gossip.collectives import Sum
from hvd_gossip.full_normalization import check_momentum, step_size, track, track_variance

from .reduce_ops import allreduce_
from .sync_batch_norm import channels_of, moments_of_all, wide_dtype

Tensor = torch.Tensor


class FullNorm(_BatchNorm):
    """Takes the place of BatchNorm where batches are tiny or hold few classes: normalizes by running estimates of the full
    data set's mean and variance, in training as in evaluation, and passes gradients through them. (Not in Horovod.)

    Use `FullNorm1d`, `FullNorm2d` or `FullNorm3d`, or convert a model with `convert_full_norm`. A batch of one value a channel
    is allowed. State dicts of BatchNorm are loaded as they are; ours have `running_grad` (2, C) besides.

    Args:
        num_features: channels C of inputs of shape (N, C), or (N, C, ...).
        eps: added to the variance.
        momentum: alpha, the weight of a batch in the estimates, in (0, 1]; 1 is BatchNorm. None averages all batches alike.
        affine: learn a weight and a bias for each channel.
        track_running_stats: without it there are no estimates, and this is BatchNorm.
        device, dtype: of parameters and estimates; float32 ones go with inputs of float16 and bfloat16 too.
        track_gradients: estimate the outer gradient by running averages as well (4).
        process_set: the workers whose batches' moments are averaged in each training step, one collective forward and one
            backward, as in `SyncBatchNorm`; None: nothing is communicated.

    Raises:
        ValueError: a momentum out of range; an input of other dimensions, not floating or of other than C channels.
    """

    _dimensions: tuple[int, ...] = (2, 3, 4, 5)
    running_grad: Tensor | None

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
        track_gradients: bool = True,
        process_set: ProcessSet | None = None,
    ) -> None:
        if momentum is not None:
            check_momentum(momentum)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.process_set = process_set
        is_tracked = track_gradients and track_running_stats
        self.register_buffer(
            "running_grad", torch.zeros(2, num_features, device=device, dtype=dtype) if is_tracked else None
        )

    @classmethod
    def convert_full_norm(cls, module: nn.Module, **options: Any) -> nn.Module:
        """The module with every BatchNorm1d, 2d and 3d in it replaced; parameters and statistics are the same tensors.

        Optimizers made before stay valid. Other layers, those of `SyncBatchNorm` too, are left.

        Args:
            module: changed in place; what is returned differs only where it is itself a BatchNorm.
            options: momentum (default: each layer's own), track_gradients, process_set.
        """
        for plain, ours in _CONVERSIONS.items():
            if isinstance(module, plain):
                return _converted(module, ours, options)
        for name, child in module.named_children():
            setattr(module, name, cls.convert_full_norm(child, **options))
        return module

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        with torch.no_grad():
            step = self._estimate(input)
        normalized: Tensor = _Normalize.apply(input, self.weight, self.bias, step)  # type: ignore[no-untyped-call]
        return normalized

    def reset_running_stats(self) -> None:
        super().reset_running_stats()
        if getattr(self, "running_grad", None) is not None:
            self.running_grad.zero_()  # type: ignore[union-attr]

    def _estimate(self, input: Tensor) -> _Step:
        """Takes a batch's moments into the estimates (1)."""
        wide = wide_dtype(input.dtype)
        count, mean, variance = self._moments(input, wide)
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return _Step(mean, variance, count, torch.ones((), dtype=wide, device=input.device), self)
        if count:
            self.num_batches_tracked.add_(1)
        batches = self.num_batches_tracked.to(wide).clamp(min=1)
        alpha = step_size(batches, self.momentum or 0.0, lambda share, floor: share.clamp(min=floor))
        before = self.running_mean.to(wide), self.running_var.to(wide)
        taken = torch.isfinite(mean) & torch.isfinite(variance) if count else torch.zeros_like(mean, dtype=torch.bool)
        new_mean = torch.where(taken, track(before[0], mean, alpha), before[0])
        merged = track_variance(before[1], variance, mean - before[0], alpha)
        new_variance = torch.where(taken, merged, before[1])
        self.running_mean.copy_(new_mean)
        self.running_var.copy_(new_variance)
        return _Step(new_mean, new_variance, count, alpha, self)

    def _moments(self, input: Tensor, wide: torch.dtype) -> tuple[float, Tensor, Tensor]:
        """How many values a channel has, on all workers of the process set, their mean and variance."""
        if self.process_set is not None and self.process_set.size() != 1:
            count, mean, variance = moments_of_all(input, self._operation(), self.process_set)
            return count, mean.to(wide), variance.to(wide)
        if not input.numel():
            nothing = input.new_zeros(self.num_features, dtype=wide)
            return 0.0, nothing, nothing
        mean, variance = torch.batch_norm_update_stats(input.to(wide), None, None, 0.0)
        return float(input.numel() // self.num_features), mean, variance

    def _operation(self) -> str:
        return f"full_norm.{self.num_features}"

    @torch.no_grad()
    def _track_gradient(self, sums: Tensor, alpha: Tensor) -> Tensor:
        """h(k) of (4), (2, C), from h_k."""
        if self.running_grad is None:
            return sums
        before = self.running_grad.to(sums.dtype)
        tracked = torch.where(torch.isfinite(sums), track(before, sums, alpha), before)
        self.running_grad.copy_(tracked)
        return tracked

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self._dimensions:
            expected = " or ".join(f"{n}D" for n in self._dimensions)
            raise ValueError(f"expected {expected} input (got {input.dim()}D input)")
        if not input.is_floating_point():
            raise ValueError(f"expected floating input, not {input.dtype}")
        if input.size(1) != self.num_features:
            raise ValueError(f"expected input of {self.num_features} channels, not of shape {tuple(input.shape)}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A BatchNorm's state, or that of a layer that tracked no gradients: nothing is known of them yet.
        if self.running_grad is not None:
            state_dict.setdefault(prefix + "running_grad", torch.zeros_like(self.running_grad))
        super()._load_from_state_dict(state_dict, prefix, *args)


class FullNorm1d(FullNorm):
    """`FullNorm` for inputs of shape (N, C) or (N, C, L), in the place of `torch.nn.BatchNorm1d`."""

    _dimensions = (2, 3)


class FullNorm2d(FullNorm):
    """`FullNorm` for inputs of shape (N, C, H, W), in the place of `torch.nn.BatchNorm2d`."""

    _dimensions = (4,)


class FullNorm3d(FullNorm):
    """`FullNorm` for inputs of shape (N, C, D, H, W), in the place of `torch.nn.BatchNorm3d`."""

    _dimensions = (5,)


class _Step(NamedTuple):
    """What one batch is normalized by: the estimates after it, its values a channel, alpha, and whose they are."""

    mean: Tensor
    variance: Tensor
    number: float
    alpha: Tensor
    layer: FullNorm


class _Normalize(torch.autograd.Function):
    """y = w (x - m) r + b, and (3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, step: _Step) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.step, ctx.bias_dtype = step, None if bias is None else bias.dtype
        scale, shift = (None if one is None else one.to(step.mean.dtype) for one in (weight, bias))
        wide = x.to(step.mean.dtype)
        if not x.numel():
            return x.clone()
        output = functional.batch_norm(wide, step.mean, step.variance, scale, shift, eps=step.layer.eps)
        return output.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wide = ctx.step.mean.dtype
        scale = torch.ones_like(ctx.step.mean) if weight is None else weight.to(wide)
        dx, dweight, dbias = _through_output(x.to(wide), upstream.to(wide), scale, ctx.step)
        if ctx.needs_input_grad[0]:
            _through_estimates(dx, x.to(wide), torch.stack([dbias, dweight]) * scale, ctx.step)
        of_weight = None if weight is None else dweight.to(weight.dtype)
        of_bias = None if ctx.bias_dtype is None else dbias.to(ctx.bias_dtype)
        return dx.to(x.dtype), of_weight, of_bias, None


def _through_output(x: Tensor, upstream: Tensor, scale: Tensor, step: _Step) -> tuple[Tensor, Tensor, Tensor]:
    """(r w d, sum d x', sum d): BatchNorm's own kernel, as in evaluation."""
    if not x.numel():
        return torch.zeros_like(x), torch.zeros_like(scale), torch.zeros_like(scale)
    unsaved = step.mean.new_empty(0)  # as in evaluation; CUDA's kernels refuse None
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        upstream, x, scale, step.mean, step.variance, unsaved, unsaved, False, step.layer.eps, [True, True, True]
    )
    return gradients


def _through_estimates(dx: Tensor, x: Tensor, sums: Tensor, step: _Step) -> None:
    """Subtracts r (h_1 + x' h_2) / N from dx."""
    tracked = step.layer._track_gradient(sums, step.alpha)
    process_set = step.layer.process_set
    if process_set is not None and process_set.size() != 1:
        tracked = tracked.clone()
        allreduce_(tracked, op=Sum, name=f"{step.layer._operation()}.grad", process_set=process_set)
    if not x.numel():
        return
    r = (step.variance + step.layer.eps).rsqrt()
    first, second = tracked / step.number
    shape, _ = channels_of(x)
    slope = second * r * r
    dx.sub_(torch.addcmul((first * r - slope * step.mean).view(shape), x, slope.view(shape)))


def _converted(module: Any, ours: type[FullNorm], options: Mapping[str, Any]) -> FullNorm:
    """A layer of ours with a BatchNorm's parameters and statistics."""
    like = module.weight if module.affine else module.running_mean
    own = {"momentum": module.momentum, **options}
    device, dtype = (None, None) if like is None else (like.device, like.dtype)
    layer = ours(module.num_features, module.eps, affine=module.affine, track_running_stats=module.track_running_stats,
                 device=device, dtype=dtype, **own)  # fmt: skip
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(layer, name, getattr(module, name))
    return layer.train(module.training)


_CONVERSIONS: dict[type[nn.Module], type[FullNorm]] = {
    nn.BatchNorm1d: FullNorm1d,
    nn.BatchNorm2d: FullNorm2d,
    nn.BatchNorm3d: FullNorm3d,
}
