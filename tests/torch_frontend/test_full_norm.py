"""FullNorm1d, 2d and 3d against their equations in NumPy, BatchNorm and autograd; in ranks: see check_full_norm.py."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import hvd_gossip.torch as hvd
import numpy as np
import pytest
import torch
from torch import nn

from tests.full_norm_equations import Equations
from tests.torch_frontend.ranks import RANKS, assert_passed, checks_in

C = 3
Tensor = torch.Tensor
LAYERS: dict[int, Any] = {2: hvd.FullNorm1d, 3: hvd.FullNorm1d, 4: hvd.FullNorm2d, 5: hvd.FullNorm3d}
PLAIN: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
SHAPES = [(4, C), (2, C, 5), (2, C, 3, 2), (2, C, 2, 2, 2)]


def batch(shape: Sequence[int], step: int, dtype: torch.dtype = torch.float64, offset: float = 0.0) -> Tensor:
    """Another one each step, with another mean and spread."""
    generator = torch.Generator().manual_seed(step)
    return (torch.randn(*shape, dtype=torch.float64, generator=generator) * (1 + step) + step + offset).to(dtype)


def with_parameters(layer: Any) -> Any:
    for number, parameter in enumerate(layer.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.data.copy_(torch.randn(C, dtype=torch.float64, generator=generator))
    return layer


def train(layer: Any, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Output, gradient of the input, and those of the parameters."""
    layer.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    y.backward(upstream)
    assert x.grad is not None
    return y.detach(), x.grad, [parameter.grad.clone() for parameter in layer.parameters()]


def compare(shape: Sequence[int], dtype: torch.dtype, tolerance: float, offset: float = 0.0, **options: Any) -> None:
    """Six steps of a layer, each compared with the equations."""
    layer = with_parameters(LAYERS[len(shape)](C, dtype=dtype, **options))
    momentum = layer.momentum or 0.0
    equations = Equations(C, momentum, layer.eps, options.get("track_gradients", True))
    weight, bias = (p.detach().double().numpy() for p in layer.parameters()) if layer.affine else (np.ones(C), 0.0)
    for step in range(6):
        x, upstream = batch(shape, step, dtype, offset), batch(shape, 100 + step, dtype) / 100
        y, dx, gradients = train(layer, x, upstream)
        close(y, equations.forward(x.double().numpy(), weight, bias), tolerance)
        expected = equations.backward(upstream.double().numpy())
        close(dx, expected[0], tolerance)
        for gradient, value in zip(gradients, expected[1:], strict=False):
            close(gradient, value, 10 * tolerance)
        close(layer.running_mean, equations.first, tolerance)
        close(layer.running_var, equations.variance, 10 * tolerance)


def close(actual: Tensor, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("track_gradients", [True, False])
def test_it_is_what_the_equations_say(shape: tuple[int, ...], track_gradients: bool) -> None:
    compare(shape, torch.float64, 1e-9, track_gradients=track_gradients)
    compare(shape, torch.float32, 3e-5, track_gradients=track_gradients)


@pytest.mark.parametrize("options", [{"momentum": None}, {"momentum": 0.9, "eps": 0.1}, {"affine": False}], ids=str)
def test_options_are_those_of_the_equations(options: dict[str, Any]) -> None:
    compare((3, C, 2), torch.float64, 1e-9, **options)


@pytest.mark.parametrize("shape", [(1, C), (1, C, 1, 1)], ids=str)
def test_a_batch_of_one_value_a_channel(shape: tuple[int, ...]) -> None:
    compare(shape, torch.float64, 1e-6)
    layer = LAYERS[len(shape)](C)
    dx = [train(layer, batch(shape, step, torch.float32), torch.ones(shape))[1] for step in range(3)]
    close(dx[0], np.zeros(shape), 1e-3)
    assert all(one.abs().min() > 0 for one in dx[1:])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"track_running_stats": False}], ids=str)
def test_alpha_1_is_batch_norm(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    ours = with_parameters(LAYERS[len(shape)](C, dtype=torch.float64, **options))
    plain = with_parameters(PLAIN[len(shape)](C, dtype=torch.float64))
    for step in range(3):
        x, upstream = batch(shape, step), batch(shape, 100 + step)
        for mine, theirs in zip(_flat(train(ours, x, upstream)), _flat(train(plain, x, upstream)), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def _flat(results: tuple[Tensor, Tensor, list[Tensor]]) -> list[Tensor]:
    return [results[0], results[1], *results[2]]


def test_the_first_batch_is_batch_norms_whatever_the_momentum() -> None:
    x = batch((4, C), 1)
    torch.testing.assert_close(hvd.FullNorm1d(C, dtype=torch.float64)(x), nn.BatchNorm1d(C, dtype=torch.float64)(x))


def test_evaluation_uses_the_estimates_and_is_differentiable() -> None:
    layer = with_parameters(hvd.FullNorm1d(C, dtype=torch.float64))
    for step in range(3):
        layer(batch((4, C), step))
    layer.eval()
    before = copy.deepcopy(layer.state_dict())
    x = batch((2, C), 9).requires_grad_()
    scale = layer.weight / (layer.running_var + layer.eps).sqrt()
    torch.testing.assert_close(layer(x), (x - layer.running_mean) * scale + layer.bias)
    assert torch.autograd.gradcheck(layer, (x,))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


class Frozen(nn.Module):
    """A layer whose step can be repeated: gradcheck calls it many times."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.state = layer, copy.deepcopy(layer.state_dict())

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        self.layer.load_state_dict(self.state)
        output: Tensor = torch.func.functional_call(self.layer, {"weight": weight, "bias": bias}, (x,))
        return output


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"track_running_stats": False}], ids=str)
def test_gradients_are_derivatives_where_the_composition_is_exact(options: dict[str, Any]) -> None:
    """With alpha < 1 they are not meant to be this batch's: the estimates stand for the data set."""
    layer = Frozen(with_parameters(hvd.FullNorm2d(C, dtype=torch.float64, **options)))
    parameters = [torch.randn(C, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(layer, (batch((2, C, 2, 2), 1).requires_grad_(), *parameters))


def test_weight_and_bias_have_exact_gradients_at_any_alpha() -> None:
    layer = hvd.FullNorm2d(C, dtype=torch.float64)
    layer(batch((2, C, 2, 2), 0))
    frozen = Frozen(with_parameters(layer))
    parameters = [torch.randn(C, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(frozen, (batch((2, C, 2, 2), 1), *parameters))


def test_estimates_come_to_the_data_sets_statistics_from_one_class_batches() -> None:
    """Means of the classes are 10 apart: most of the variance is between the classes, where batches have none of it."""
    generator = torch.Generator().manual_seed(0)
    layer, plain = hvd.FullNorm1d(1, momentum=None), nn.BatchNorm1d(1, momentum=None)
    for step in range(200):
        x = torch.randn(2, 1, generator=generator) + 10 * (step % 4)
        layer(x)
        plain(x)
    whole = 1 + 100 * np.var(range(4))
    assert layer.running_mean.item() == pytest.approx(15, abs=0.2)
    assert layer.running_var.item() == pytest.approx(whole, rel=0.05)
    assert plain.running_var.item() < 0.05 * whole


@pytest.mark.slow
def test_the_tracked_gradient_is_that_of_the_full_loss() -> None:
    """Frozen parameters: on average over one-class batches, the gradient is the one of the loss over all data at once."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 8, C, dtype=torch.float64, generator=generator) + torch.arange(4.0)[:, None, None] * 3
    factors = torch.randn(4, 1, C, dtype=torch.float64, generator=generator).expand(4, 8, C)
    full = nn.BatchNorm1d(C, dtype=torch.float64)
    _, whole, _ = train(full, x.flatten(0, 1), factors.flatten(0, 1) / 4)
    errors = {}
    for tracked in (True, False):
        layer = hvd.FullNorm1d(C, momentum=0.01, dtype=torch.float64, track_gradients=tracked)
        total = torch.zeros_like(x)
        for step in range(400):
            kind = step % 4
            _, dx, _ = train(layer, x[kind], factors[kind])
            if step >= 200:
                total[kind] += dx / 200
        errors[tracked] = ((total.flatten(0, 1) - whole).norm() / whole.norm()).item()
    assert errors[True] < 0.2
    assert errors[False] > 0.5, "one batch as both samples of the composition is far off with one-class batches"


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_inputs_and_parameters(half: torch.dtype) -> None:
    shape, reference = (4, C, 3, 3), hvd.FullNorm2d(C)
    mixed, pure = hvd.FullNorm2d(C), hvd.FullNorm2d(C, dtype=half)
    for step in range(3):
        x, upstream = batch(shape, step, half), batch(shape, 50 + step, half) / 50
        expected = train(reference, x.float(), upstream.float())
        for layer in (mixed, pure):
            y, dx, _ = train(layer, x, upstream)
            assert y.dtype == dx.dtype == half
            close(y, expected[0], 5e-2)
            close(dx, expected[1], 5e-2)
    assert mixed.running_mean.dtype == mixed.weight.grad.dtype == torch.float32
    torch.testing.assert_close(mixed.running_var, reference.running_var)


def test_autocast() -> None:
    net = nn.Sequential(nn.Conv2d(1, C, 3), hvd.FullNorm2d(C), nn.Flatten(), nn.Linear(C * 4, 2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(torch.randn(2, 1, 4, 4)).float().square().mean()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())


def test_channels_last_and_strided_inputs() -> None:
    x, upstream = batch((2, C, 4, 6), 1), batch((2, C, 4, 6), 2)
    results = []
    for one in (x, x.to(memory_format=torch.channels_last), torch.stack([x, x], dim=-1)[..., 0]):
        layer = with_parameters(hvd.FullNorm2d(C, dtype=torch.float64))
        layer(batch((2, C, 4, 6), 0))
        results.append(_flat(train(layer, one, upstream)))
    for result in results[1:]:
        for mine, first in zip(result, results[0], strict=True):
            torch.testing.assert_close(mine, first)


def test_the_variance_is_stable_far_from_zero() -> None:
    """E[x^2] - E[x]^2 would have lost all digits of it in float32."""
    layer = hvd.FullNorm1d(C)
    batches = [batch((64, C), 0, torch.float32, offset=3e4) + step for step in range(3)]
    for one in batches:
        layer(one)
    expected = torch.cat(batches).double().var(0, correction=0)
    torch.testing.assert_close(layer.running_var.double(), expected, rtol=1e-3, atol=0)


def test_what_is_not_finite_is_not_taken_in() -> None:
    layer = hvd.FullNorm1d(C)
    train(layer, batch((4, C), 0, torch.float32), torch.ones(4, C))
    kept = [buffer.clone() for buffer in (layer.running_mean, layer.running_var, layer.running_grad)]
    bad = torch.ones(4, C)
    bad[0, 0] = torch.inf
    upstream = torch.ones(4, C)
    upstream[0, 1] = torch.nan
    train(layer, bad, upstream)
    for buffer, before in zip((layer.running_mean, layer.running_var, layer.running_grad), kept, strict=True):
        assert torch.isfinite(buffer).all()
        assert torch.equal(buffer[..., 0], before[..., 0])
    assert layer.running_mean[1] != kept[0][1]


def test_a_batch_without_rows_changes_nothing() -> None:
    layer = hvd.FullNorm1d(C)
    before = copy.deepcopy(layer.state_dict())
    x = torch.zeros(0, C, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == (0, C)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_state_is_saved_copied_and_resumed_bit_by_bit() -> None:
    layer = with_parameters(hvd.FullNorm1d(C))
    for step in range(3):
        train(layer, batch((2, C), step, torch.float32), torch.ones(2, C))
    fresh = hvd.FullNorm1d(C)
    fresh.load_state_dict(layer.state_dict())
    expected = _flat(train(layer, batch((2, C), 9, torch.float32), torch.arange(6.0).view(2, C)))
    for copied in (fresh, pickle.loads(pickle.dumps(fresh)), copy.deepcopy(fresh)):
        for mine, theirs in zip(
            _flat(train(copied, batch((2, C), 9, torch.float32), torch.arange(6.0).view(2, C))), expected, strict=True
        ):
            assert torch.equal(mine, theirs)


def test_a_state_of_batch_norm_is_loaded_strictly() -> None:
    plain = nn.BatchNorm1d(C)
    plain(batch((4, C), 2, torch.float32))
    layer = hvd.FullNorm1d(C)
    layer.running_grad.fill_(5)
    layer.load_state_dict(plain.state_dict())
    x = batch((4, C), 1, torch.float32)
    torch.testing.assert_close(layer.eval()(x), plain.eval()(x))
    assert not layer.running_grad.any()
    plain.load_state_dict(layer.state_dict(), strict=False)


def test_statistics_are_reset() -> None:
    layer = hvd.FullNorm1d(C)
    train(layer, batch((4, C), 2, torch.float32), torch.randn(4, C))
    layer.reset_parameters()
    for name, value in hvd.FullNorm1d(C).state_dict().items():
        assert torch.equal(layer.state_dict()[name], value), name


def test_a_model_is_converted_in_place_with_its_very_tensors() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, C, 3), nn.BatchNorm2d(C, momentum=0.3), nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(C, affine=False)),
        nn.GroupNorm(1, C), nn.BatchNorm3d(C).eval(),
    )  # fmt: skip
    model[1](torch.randn(4, C, 2, 2))
    before = dict(model.state_dict(keep_vars=True))
    converted = hvd.FullNorm1d.convert_full_norm(model)
    assert converted is model
    kinds = [hvd.FullNorm2d, hvd.FullNorm1d, hvd.FullNorm3d]
    layers: list[Any] = [model[1], model[2][1], model[4]]
    assert [type(layer) for layer in layers] == kinds
    assert [layer.training for layer in layers] == [True, True, False]
    assert model[1].momentum == 0.3
    assert type(model[3]) is nn.GroupNorm
    after = dict(model.state_dict(keep_vars=True))
    assert all(after[name] is value for name, value in before.items())
    assert set(after) - set(before) == {"1.running_grad", "2.1.running_grad", "4.running_grad"}


def test_a_layer_alone_is_converted_with_options() -> None:
    plain = nn.BatchNorm1d(C, momentum=0.0, dtype=torch.float64)
    layer: Any = hvd.FullNorm2d.convert_full_norm(plain, momentum=0.5, track_gradients=False)
    assert (type(layer), layer.momentum, layer.running_grad) == (hvd.FullNorm1d, 0.5, None)
    assert layer.running_mean is plain.running_mean
    with pytest.raises(ValueError, match="0 < weight of a batch"):
        hvd.FullNorm1d.convert_full_norm(plain)


def test_a_weight_without_a_bias() -> None:
    plain: Any = nn.BatchNorm1d(C, momentum=1.0)
    plain.bias = None
    layer = hvd.FullNorm1d.convert_full_norm(copy.deepcopy(plain))
    x, upstream = batch((4, C), 1, torch.float32), batch((4, C), 2, torch.float32)
    for mine, theirs in zip(_flat(train(layer, x, upstream)), _flat(train(plain, x, upstream)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_misuse() -> None:
    for momentum in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match="0 < weight of a batch"):
            hvd.FullNorm1d(C, momentum=momentum)
    with pytest.raises(ValueError, match=r"expected 2D or 3D input \(got 4D input\)"):
        hvd.FullNorm1d(C)(torch.ones(1, C, 1, 1))
    with pytest.raises(ValueError, match=r"expected 4D input \(got 2D input\)"):
        hvd.FullNorm2d(C)(torch.ones(1, C))
    with pytest.raises(ValueError, match="3 channels"):
        hvd.FullNorm1d(C)(torch.ones(4, 2))
    with pytest.raises(ValueError, match="expected floating input"):
        hvd.FullNorm1d(C)(torch.ones(4, C, dtype=torch.int64))


def test_a_layer_used_twice_is_differentiated_at_the_estimates_of_each_use() -> None:
    """As are two layers, the second of which begins with the first one's estimates."""
    twice, first, second = (hvd.FullNorm1d(C, dtype=torch.float64, track_gradients=False) for _ in range(3))
    x, upstream = batch((4, C), 1), batch((4, C), 2)
    second.load_state_dict(first.state_dict())
    _, dx, _ = train(nn.Sequential(twice, nn.ReLU(), twice), x, upstream)
    with torch.no_grad():
        first(x)
    second.load_state_dict(first.state_dict())
    first.reset_running_stats()
    _, expected, _ = train(nn.Sequential(first, nn.ReLU(), second), x, upstream)
    torch.testing.assert_close(dx, expected)


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("check", checks_in("check_full_norm.py"))
def test_in_ranks(check: str, n: int) -> None:
    assert_passed("check_full_norm.py", check, n, timeout=300)
