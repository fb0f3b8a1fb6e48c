"""Checks of what works together with DistributedOptimizer under allreduce: closures, schedulers, scaling, clipping.

Run by test_averaging.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import hvd_gossip.torch as hvd
import pytest
import torch
from torch import nn

from tests.torch_device import DEVICE
from tests.torch_frontend.check_averaging import OPTIMIZERS, STEPS, batch_of, close, distributed, reference
from tests.torch_frontend.models import flat, loss_of, make_model
from tests.torch_frontend.ranks import run_checks


def check_lbfgs_decides_alike_on_every_rank() -> None:
    def run(model: nn.Module, optimizer: Any, ranks: list[int]) -> tuple[float, torch.Tensor]:
        batches = [(inputs.double(), labels) for inputs, labels in (batch_of(rank, 0) for rank in ranks)]

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.stack([loss_of(model, batch) for batch in batches]).mean()
            loss.backward()
            return loss.detach()

        losses = [optimizer.step(closure) for _ in range(3)]
        return float(losses[-1]), flat(model)

    def make(parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(parameters, lr=0.5, max_iter=6, line_search_fn="strong_wolfe")

    model, plain = make_model().double(), make_model().double()
    loss, result = run(model, distributed(model, make), [hvd.rank()])
    expected_loss, expected = run(plain, make(plain.parameters()), list(range(hvd.size())))
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    close(result, expected, tolerance=1e-4)


def check_closures_that_return_numbers() -> None:
    model = make_model()
    optimizer = distributed(model)

    def closure() -> float:
        optimizer.zero_grad()
        loss_of(model, batch_of(hvd.rank(), 0)).backward()
        return float(hvd.rank())

    assert optimizer.step(closure) == (hvd.size() - 1) / 2
    close(flat(model), reference(OPTIMIZERS["sgd"], steps=1))


def check_schedulers_made_before_or_after_wrapping() -> None:
    for before in (True, False):
        model = make_model()
        plain = torch.optim.SGD(model.parameters(), lr=0.1)
        if before:
            scheduler = torch.optim.lr_scheduler.StepLR(plain, step_size=1, gamma=0.5)
        optimizer = hvd.DistributedOptimizer(plain, named_parameters=model.named_parameters())
        if not before:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model, batch_of(hvd.rank(), 0)).backward()
            optimizer.step()  # with a warning, were the scheduler to see no step
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0125)
        everybody = hvd.allgather(flat(model).unsqueeze(0))
        assert all(torch.equal(everybody[0], other) for other in everybody)


def check_grad_scaler() -> None:
    for make in (OPTIMIZERS["sgd"], OPTIMIZERS["adamw fused"]):
        model = make_model()
        optimizer = distributed(model, make)
        scaler = torch.amp.GradScaler(DEVICE.type, init_scale=8.0)
        for step in range(STEPS):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, batch_of(hvd.rank(), step))).backward()
            optimizer.synchronize()
            scaler.unscale_(optimizer)
            with optimizer.skip_synchronize():
                scaler.step(optimizer)
            scaler.update()
        close(flat(model), reference(make))


def check_an_overflow_on_one_rank_skips_the_step_on_all() -> None:
    model = make_model()
    before = flat(model)
    optimizer = distributed(model)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=8.0)
    factor = float("inf") if hvd.rank() == hvd.size() - 1 else 1.0
    scaler.scale(loss_of(model, batch_of(hvd.rank(), 0)) * factor).backward()
    optimizer.synchronize()
    with optimizer.skip_synchronize():
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert torch.equal(flat(model), before)


def check_clipping_after_synchronize() -> None:
    model, plain = make_model(), make_model()
    optimizer = distributed(model)
    loss_of(model, batch_of(hvd.rank(), 0)).backward()
    optimizer.synchronize()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    with optimizer.skip_synchronize():
        optimizer.step()

    other = torch.optim.SGD(plain.parameters(), lr=0.1)
    for rank in range(hvd.size()):
        (loss_of(plain, batch_of(rank, 0)) / hvd.size()).backward()
    close(norm, torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1))
    other.step()
    close(flat(model), flat(plain))


if __name__ == "__main__":
    run_checks(globals())
