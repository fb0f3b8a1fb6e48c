"""hvd.AccumAdam and hvd.AccumAdamW: against their equations, against PyTorch's Adam, and as an optimizer among others."""

from __future__ import annotations

import copy
import io
from typing import Any

import hvd_gossip.torch as hvd
import numpy as np
import pytest
import torch

from tests.accumulated import accumulated_adam
from tests.torch_frontend.ranks import assert_passed, checks_in

KINDS = [hvd.AccumAdam, hvd.AccumAdamW]


def gradients(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 3, dtype=torch.float64, generator=generator) for _ in range(count)]


def start() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.linspace(-2, 2, 15, dtype=torch.float64).reshape(5, 3))


def descend(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, given: list[torch.Tensor]) -> None:
    for gradient in given:
        parameter.grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("s", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_its_steps_are_those_of_the_equations(kind: Any, s: int) -> None:
    parameter, given = start(), gradients(13)
    x = parameter.detach().numpy().copy()
    options: dict[str, Any] = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3}
    descend(kind([parameter], accum_iter=s, **options), parameter, given)
    expected = accumulated_adam(x, [g.numpy() for g in given], s=s, decoupled=kind.decoupled, **options)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "plain"), [(hvd.AccumAdam, torch.optim.Adam), (hvd.AccumAdamW, torch.optim.AdamW)])
def test_periods_of_one_step_are_adam(kind: Any, plain: Any) -> None:
    ours, theirs, given = start(), start(), gradients(9)
    descend(kind([ours], lr=0.1, weight_decay=0.1, accum_iter=1), ours, given)
    descend(plain([theirs], lr=0.1, weight_decay=0.1), theirs, given)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_the_second_moment_is_that_of_mean_gradients() -> None:
    """Noise of a small batch: its mean square is s times that of the means of s gradients."""
    parameter, noise = start(), gradients(4000)
    optimizer = hvd.AccumAdam([parameter], lr=0.0, betas=(0.9, 0.99), accum_iter=8)
    descend(optimizer, parameter, noise)
    (state,) = optimizer.state.values()
    assert float(state["exp_avg_sq"].mean()) == pytest.approx(1 / 8, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_state_goes_on_bit_by_bit(kind: Any) -> None:
    """Also within a period."""
    one, given = start(), gradients(11)
    optimizer = kind([one], lr=0.1)
    descend(optimizer, one, given[:6])
    other, stream = copy.deepcopy(one), io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    resumed = kind([other], lr=0.5)
    resumed.load_state_dict(torch.load(stream))
    descend(optimizer, one, given[6:])
    descend(resumed, other, given[6:])
    assert torch.equal(one, other)


def test_groups_have_settings_of_their_own_and_closures_are_called() -> None:
    one, other = start(), start()
    optimizer = hvd.AccumAdam([{"params": [one], "accum_iter": 1}, {"params": [other], "lr": 0.0}], lr=0.1)
    before = other.detach().clone()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (one**2).sum() + (other**2).sum()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert torch.equal(other, before)


def test_what_it_does_not_take() -> None:
    parameter = start()
    for options, message in (
        ({"lr": -1.0}, "lr=-1.0"),
        ({"eps": float("nan")}, "eps=nan"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"accum_iter": 0}, "accum_iter=0"),
        ({"accum_iter": 1.5}, r"accum_iter=1\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            hvd.AccumAdam([parameter], **options)  # type: ignore[arg-type]
    parameter.grad = torch.zeros(5, 3, dtype=torch.float64).to_sparse()
    with pytest.raises(RuntimeError, match="AccumAdam takes no sparse gradients"):
        hvd.AccumAdam([parameter]).step()


@pytest.mark.timeout(320)
@pytest.mark.parametrize("n", [2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("check", checks_in("check_accum_adam.py"))
def test_under_distributed_optimizer(check: str, n: int) -> None:
    assert_passed("check_accum_adam.py", check, n, timeout=300)
