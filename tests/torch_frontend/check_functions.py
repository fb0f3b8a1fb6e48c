"""Checks of broadcast_parameters and broadcast_optimizer_state; run by test_functions.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch
from torch import nn

from tests.ranks import UNDER_TEST
from tests.torch_device import normal
from tests.torch_frontend.models import flat, loss_of, make_batch, make_model
from tests.torch_frontend.ranks import run_checks


def check_parameters_in_every_form() -> None:
    forms: list[Callable[[nn.Module], Any]] = [
        lambda model: model.state_dict(),
        lambda model: model.named_parameters(),
        lambda model: list(model.named_parameters()),
        lambda model: model.parameters(),
        lambda model: [*model.parameters(), None],
        lambda model: dict(model.named_parameters()),
    ]
    for root in (0, hvd.size() - 1):
        for form in forms:
            model = make_model(seed=hvd.rank())
            hvd.broadcast_parameters(form(model), root_rank=root)
            assert torch.equal(flat(model), flat(make_model(seed=root)))


def check_buffers_come_along() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1).to(memory_format=torch.channels_last), nn.BatchNorm2d(3))  # type: ignore[call-overload]
    model(normal(4, 2, 3, 3, source=hvd.rank()))
    for _ in range(hvd.rank()):
        model(torch.zeros(4, 2, 3, 3))
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    states = hvd.allgather_object(model.state_dict())
    assert model[1].num_batches_tracked == 1
    assert all(torch.equal(states[0][name], value) for name, value in model.state_dict().items())


def check_what_is_no_parameters() -> None:
    for wrong in ("weights", 3, torch.ones(2), None):
        with pytest.raises(ValueError, match="invalid params of type"):
            hvd.broadcast_parameters(wrong, root_rank=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epoch is a int, not a tensor"):
        hvd.broadcast_parameters({"epoch": 3}, root_rank=0)


def trained(make: Callable[[Any], torch.optim.Optimizer], steps: int, distributed: str = "") -> tuple[nn.Module, Any]:
    model = make_model()
    optimizer: Any = make(model.parameters())
    if distributed:
        optimizer = hvd.DistributedOptimizer(optimizer, model.named_parameters(), algorithm=distributed)
    for step in range(steps):

        def closure(step: int = step) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, make_batch(seed=step + hvd.rank()))
            loss.backward()
            return loss.detach()

        optimizer.step(closure)
    return model, optimizer


def assert_alike(state: dict[str, Any]) -> None:
    """All ranks have the root's (rank 0's) optimizer state."""
    states = hvd.allgather_object(state)
    torch.testing.assert_close(states[0], state, rtol=0, atol=0)


MAKE: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1), betas=(0.8, 0.9), foreach=False),
    "rprop": lambda p: torch.optim.Rprop(p),
    "lbfgs": lambda p: torch.optim.LBFGS(p, max_iter=2),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1),
}


def check_state_of_every_optimizer() -> None:
    for make in MAKE.values():
        for steps_elsewhere in (0, 2):  # as after resuming from a checkpoint that only the root has read
            _, optimizer = trained(make, steps=3 if hvd.rank() == 0 else steps_elsewhere)
            hvd.broadcast_optimizer_state(optimizer, root_rank=0)
            assert_alike(optimizer.state_dict())


def check_a_fresh_root_clears_the_others() -> None:
    _, optimizer = trained(MAKE["momentum"], steps=hvd.rank())
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    assert not optimizer.state_dict()["state"]
    assert all(p.grad is None for p in optimizer.param_groups[0]["params"]) or hvd.rank() > 0


def check_options_keep_their_types() -> None:
    model = make_model()
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2].parameters()}]
    optimizer = torch.optim.Adam(groups, lr=0.1, betas=(0.5, 0.6))
    if hvd.rank() > 0:
        for group in optimizer.param_groups:
            group.update(lr=7.0, betas=(0.1, 0.1), amsgrad=True)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    first, second = optimizer.param_groups
    assert (first["lr"], second["lr"]) == (0.5, 0.1)
    assert first["betas"] == (0.5, 0.6)
    assert first["amsgrad"] is False
    assert isinstance(first["lr"], float)


def check_state_of_distributed_optimizers() -> None:
    for algorithm in UNDER_TEST:
        model, optimizer = trained(MAKE["adam"], steps=2, distributed=algorithm)
        optimizer.param_groups[0]["lr"] = 0.1 * (1 + hvd.rank())
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        hvd.broadcast_optimizer_state(optimizer, root_rank=0)
        assert optimizer.param_groups[0]["lr"] == 0.1
        assert_alike(optimizer.state_dict())
        before = copy.deepcopy(optimizer.state_dict()["state"][0]["step"])
        loss_of(model, make_batch(0)).backward()
        optimizer.step()
        assert optimizer.state_dict()["state"][0]["step"] == before + 1


def check_strides_of_the_state_are_kept() -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if hvd.rank() == 0:
        model(torch.randn(2, 3, 4, 4)).sum().backward()
        optimizer.step()
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    momentum = optimizer.state[model.weight]["momentum_buffer"]
    assert momentum.is_contiguous(memory_format=torch.channels_last)
    assert_alike(optimizer.state_dict())


if __name__ == "__main__":
    run_checks(globals())
